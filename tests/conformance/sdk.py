"""The judge's end of a driver: an SDK in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

# What a driver says in one line: 501 messages or a page of them.
_LINE_BYTES = 16 * 2**20
_END_S = 10.0


@dataclass
class SdkError(Exception):
    """A call failed, as the SDK told it; the same names in every language."""

    code: str
    message: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[dict[str, str]] = field(default_factory=list)
    retry_after_s: float | None = None
    trace_id: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.reason}: {self.message}"


class Call:
    """One request under way: its frames as they come, and its result."""

    def __init__(self, sdk: Sdk, number: int) -> None:
        self._sdk = sdk
        self._number = number
        self._lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def tell(self, line: dict[str, Any]) -> None:
        """Take a line that the driver said of this request."""
        self._lines.put_nowait(line)

    async def frames(self) -> AsyncIterator[dict[str, Any]]:
        """Every frame; raises SdkError if the call fails."""
        while "frame" in (line := await self._lines.get()):
            yield line["frame"]
        self._lines.put_nowait(line)
        await self.result()

    async def result(self) -> Any:
        """What the call gave, its frames passed over; raises SdkError."""
        while "frame" in (line := await self._lines.get()):
            pass
        if "error" in line:
            raise SdkError(**line["error"])
        return line["ok"]

    async def until(self, kind: str) -> dict[str, Any]:
        """The next frame of a kind; it is an error if the call ends before."""
        async for frame in self.frames():
            if frame["kind"] == kind:
                return frame
        raise AssertionError(f"no {kind} frame came")

    async def cancel(self) -> None:
        """Cancel it as the SDK's language does."""
        await self._sdk.ask("cancel", target=self._number).result()


class Sdk:
    """A driver and the requests that it is at."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._reading = asyncio.create_task(self._read())

    def ask(self, op: str, **arguments: Any) -> Call:
        """Send a request."""
        number = next(self._numbers)
        call = self._calls[number] = Call(self, number)
        assert self._process.stdin is not None
        line = json.dumps({"id": number, "op": op, **arguments})
        self._process.stdin.write(line.encode() + b"\n")
        return call

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            number = said.pop("id")
            self._calls[number].tell(said)
            if "frame" not in said:
                del self._calls[number]
        for call in self._calls.values():
            call.tell({"error": {"code": "DRIVER_ENDED"}})

    async def stop(self) -> None:
        """Close its input, at which a driver ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading


class Person:
    """A client of the SDK, or one of its users."""

    _names = itertools.count(1)

    def __init__(self, sdk: Sdk, name: str, timeout_s: float, instructions: str = "") -> None:
        """`instructions` go with every chat that has none of its own."""
        self._sdk = sdk
        self._name = name
        self._timeout_s = timeout_s
        self._instructions = instructions

    @classmethod
    async def connect(cls, sdk: Sdk, address: str, *, timeout_s: float, **options: Any) -> Person:
        """Open a client whose calls, chats too, may take so long."""
        name = f"client-{next(cls._names)}"
        ask = sdk.ask("connect", on=name, address=address, timeout_s=timeout_s, **options)
        await ask.result()
        return cls(sdk, name, timeout_s)

    async def as_user(self, user: str, instructions: str) -> Person:
        """One of the application's end users."""
        name = f"user-{next(self._names)}"
        await self._sdk.ask("as_user", on=self._name, name=name, user=user).result()
        return Person(self._sdk, name, self._timeout_s, instructions)

    def begin(self, op: str, **arguments: Any) -> Call:
        """Start a call."""
        if op in ("chat", "reply"):
            arguments.setdefault("timeout_s", self._timeout_s)
            arguments.setdefault("instructions", self._instructions)
        return self._sdk.ask(op, on=self._name, **arguments)

    async def do(self, op: str, **arguments: Any) -> Any:
        """Make a call and give what it gives."""
        return await self.begin(op, **arguments).result()

    async def chat(self, text: str, **arguments: Any) -> list[dict[str, Any]]:
        """Every frame of a reply."""
        return [frame async for frame in self.begin("chat", text=text, **arguments).frames()]


@asynccontextmanager
async def running(name: str, command: Sequence[str]) -> AsyncIterator[Sdk]:
    """A driver, ended at the end; what it writes to standard error is seen."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    sdk = Sdk(name, process)
    try:
        yield sdk
    finally:
        await sdk.stop()
