"""The Python SDK's driver; it needs the SDK and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

import echomesh
from echomesh._session import Attempts, Deadline
from echomesh.auth.v1 import admin_pb2, auth_pb2
from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2

_FILES = (auth_pb2, admin_pb2, conversation_pb2, memory_pb2, chat_pb2, routing_pb2)
_LISTS = ("memories", "conversations", "messages")
_ROLES = {"user": models_pb2.CHAT_ROLE_USER, "assistant": models_pb2.CHAT_ROLE_ASSISTANT}
_KINDS = {"MemoriesUsed": "memories", "ToolCall": "tool_call"}


class Driver:
    """What the judge has opened so far."""

    def __init__(self) -> None:
        self.clients: dict[str, echomesh.Client] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def begin(self, request: dict[str, Any]) -> None:
        """Start on a request."""
        number, op = request.pop("id"), request.pop("op")
        self.tasks[number] = asyncio.create_task(self.answer(number, op, request))

    async def answer(self, number: int, op: str, request: dict[str, Any]) -> None:
        """Do it and say what came of it."""
        try:
            say(id=number, ok=await self.do(number, op, request))
        except echomesh.EchomeshError as error:
            say(id=number, error=told(error))
        except asyncio.CancelledError:
            say(id=number, error={"code": "CANCELLED"})
        except Exception as error:
            say(id=number, error={"code": "DRIVER", "message": repr(error)})
        finally:
            del self.tasks[number]

    async def do(self, number: int, op: str, request: dict[str, Any]) -> Any:
        """The result of a request."""
        if op == "connect":
            name = request.pop("on")
            if "root_certificates" in request:
                request["root_certificates"] = request["root_certificates"].encode()
            self.clients[name] = echomesh.Client(request.pop("address"), **request)
            return None
        if op == "cancel":
            self.tasks[request["target"]].cancel()
            return None
        if op == "retry_table":
            return retry_table()
        client = self.clients[request.pop("on")]
        if op == "as_user":
            self.clients[request["name"]] = client.as_user(request["user"])
            return None
        return await call(number, client, op, request)


async def call(number: int, client: echomesh.Client, op: str, request: dict[str, Any]) -> Any:
    """Call a method of the SDK."""
    if "timeout_s" in request and op not in ("chat", "reply"):
        client = with_timeout(client, request.pop("timeout_s"))
    request = {name: given(name, value) for name, value in request.items()}
    if op == "chat":
        return await chat(number, client, request)
    if op == "import_messages":
        return plain(await client.import_messages(**request))
    if op in _LISTS:
        return [plain(item) async for item in getattr(client, op)(**request)]
    result = await getattr(client, op)(**request)
    if op == "explain":
        return {"model": result.decision.model, "reply_id": result.reply_id}
    if op == "reply":
        return {"text": result[0], "final": plain(result[1])}
    if op == "index_status":
        return {"memories": result[0], "pending": result[1]}
    return plain(result)


def given(name: str, value: Any) -> Any:
    """An argument as the SDK wants it."""
    if name in ("time", "since", "until"):
        return datetime.fromisoformat(value)
    if name in _PARTS:
        return [_PARTS[name](**each) for each in value]
    return value


def said(role: str, content: str) -> models_pb2.ChatMessage:
    """A message of the history that an application brings along."""
    return models_pb2.ChatMessage(role=_ROLES[role], content=content)


_PARTS: dict[str, Callable[..., Any]] = {
    "history": said,
    "tools": models_pb2.Tool,
    "messages": echomesh.NewMessage,
}


def with_timeout(client: echomesh.Client, timeout_s: float) -> echomesh.Client:
    """The same client, but its calls may take only so long."""
    other = object.__new__(echomesh.Client)
    other.__dict__.update(client.__dict__, _timeout_s=timeout_s)
    return other


async def chat(number: int, client: echomesh.Client, request: dict[str, Any]) -> None:
    """Tell frames as they come; leave, or fail, after so many of text if told to."""
    leave_after, fail_after = request.pop("leave_after", 0), request.pop("fail_after", 0)
    frames: AsyncIterator[echomesh.Frame] = client.chat(**request)
    async with aclosing(frames):  # type: ignore[type-var] # a generator
        texts = 0
        async for frame in frames:
            kind = type(frame).__name__
            say(id=number, frame={"kind": _KINDS.get(kind, kind.lower()), **plain(frame)})
            texts += isinstance(frame, echomesh.Text)
            if fail_after and texts == fail_after:
                raise RuntimeError("the caller's own error")
            if leave_after and texts == leave_after:
                return


def plain(value: Any) -> Any:
    """What JSON can say."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {k: plain(v) for k, v in vars(value).items()}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value


def told(error: echomesh.EchomeshError) -> dict[str, Any]:
    """An error by the judge's names."""
    return {
        "code": error.code.name,
        "message": error.message,
        "reason": error.reason,
        "metadata": error.metadata,
        "violations": [vars(violation) for violation in error.violations],
        "retry_after_s": error.retry_after,
        "trace_id": error.trace_id,
    }


def retry_table() -> dict[str, int]:
    """How often the SDK would try each method."""
    methods = [
        method
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    return {m.full_name: Attempts(m, Deadline(1.0))._left for m in methods}


def say(**line: Any) -> None:
    """One line to the judge."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until the judge closes our input."""
    driver = Driver()
    while line := await asyncio.to_thread(sys.stdin.readline):
        driver.begin(json.loads(line))


if __name__ == "__main__":
    asyncio.run(main())
