"""kubectl and helm as functions; both must be in PATH."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/echomesh"
# A command itself is quick; what it waits for says how long it may take.
COMMAND_S = 120.0
# Starting all pods of a mesh on a small, busy machine.
INSTALL_S = 600
FORWARD_S = 60.0
PATIENCE_S = 180.0
# The API server's connection may break under load; a question may be asked again.
QUESTIONS = ("get", "logs", "exec")
BROKEN = (
    "i/o timeout",
    "bad record MAC",
    "connection lost",
    "unexpected EOF",
    "handshake timeout",
    "connection reset",
    "broken pipe",
)
TRIES = 5


class CommandFailed(Exception):
    """A command ended with an error; the text is what it said."""


async def run(
    *command: str,
    given: str = "",
    timeout_s: float = COMMAND_S,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return what it says; raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(given.encode()), timeout_s)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise CommandFailed(f"{' '.join(command[:6])}: {err.decode()}{out.decode()}".strip())
    return out.decode()


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, limit_s: float = PATIENCE_S
) -> None:
    """Ask until the answer is yes; it is an error if it is not in time."""
    ends = time.monotonic() + limit_s
    while not await condition():
        assert time.monotonic() < ends, f"not within {limit_s:.0f} s: {what}"
        await asyncio.sleep(0.3)


class Namespace:
    """One namespace of the cluster, with at most one release in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def kubectl(self, *arguments: str, given: str = "", timeout_s: float = COMMAND_S) -> str:
        """Run kubectl in this namespace."""
        command = ("kubectl", "--namespace", self.name, *arguments)
        for _ in range(TRIES if arguments[0] in QUESTIONS else 1):
            try:
                return await run(*command, given=given, timeout_s=timeout_s)
            except CommandFailed as error:
                failed = error
                if not any(words in str(error) for words in BROKEN):
                    break
        raise failed

    async def apply(self, *objects: dict[str, Any]) -> None:
        """Make or change objects."""
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        await self.kubectl("apply", "-f", "-", given=manifest)

    async def get(self, kind: str, *arguments: str) -> Any:
        """The objects of a kind, or one."""
        return json.loads(await self.kubectl("get", kind, *arguments, "-o", "json"))

    async def secret(self, name: str) -> dict[str, str]:
        """What a Secret holds."""
        data = (await self.get("secret", name)).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    async def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods of a part of the mesh that are not on their way out."""
        selector = f"app.kubernetes.io/component={component}"
        found = (await self.get("pods", "-l", selector))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    async def ready(self, component: str) -> list[str]:
        """The names of those pods that are ready."""
        return [
            pod["metadata"]["name"]
            for pod in await self.pods(component)
            for condition in pod["status"].get("conditions", ())
            if (condition["type"], condition["status"]) == ("Ready", "True")
        ]

    async def rolled_out(self, kind: str, name: str) -> None:
        """Wait until all pods of a workload are new and ready."""
        limit = f"--timeout={INSTALL_S}s"
        await self.kubectl("rollout", "status", f"{kind}/{name}", limit, timeout_s=INSTALL_S + 30)

    async def metric(self, pod: str, port: int, name: str) -> float:
        """The sum of a metric of a pod over its labels."""
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}:{port}/proxy/metrics"
        lines = (await self.kubectl("get", "--raw", path)).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    async def helm(self, *arguments: str) -> str:
        """Run helm in this namespace."""
        command = ("helm", "--namespace", self.name, *arguments)
        return await run(*command, timeout_s=2 * INSTALL_S)

    async def release(self) -> Any:
        """What Helm says of the release: `version` is its revision."""
        return json.loads(await self.helm("status", "echomesh", "-o", "json"))

    async def python(self, pod: str, program: str, *arguments: str, given: str = "") -> str:
        """Run a Python program in a pod."""
        command = ("exec", "-i", pod, "--", "python3", "-c", program, *arguments)
        return await self.kubectl(*command, given=given)

    async def sql(self, query: str) -> list[str]:
        """The rows of a query as the demo Postgres' superuser, each as one line."""
        shell = 'PGPASSWORD=$(cat /keys/postgres-password) exec psql -h 127.0.0.1 -U postgres "$@"'
        words = ("-d", "echomesh", "-At", "-f", "-")
        command = ("exec", "-i", "echomesh-postgres-0", "--", "sh", "-c", shell, "sh", *words)
        return (await self.kubectl(*command, given=query)).splitlines()

    @asynccontextmanager
    async def forwarded(self, address: str, services: Sequence[str]) -> AsyncIterator[None]:
        """Ports of the release's services at a loopback address, each by its own number."""
        ports = {"routing": "7400", "auth": "7401", "memory": "7402", "gateway": "7405"}
        started = []
        try:
            for service in services:
                command = [
                    "kubectl",
                    "--namespace",
                    self.name,
                    "port-forward",
                    "--address",
                    address,
                ]
                command += [f"service/echomesh-{service}", ports[service]]
                process = await asyncio.create_subprocess_exec(
                    *command, stdout=asyncio.subprocess.PIPE, stderr=subprocess.STDOUT
                )
                started.append(process)
                assert process.stdout is not None
                line = await asyncio.wait_for(process.stdout.readline(), FORWARD_S)
                assert b"Forwarding from" in line, line.decode()
            yield
        finally:
            for process in started:
                process.kill()
            await asyncio.gather(*(process.wait() for process in started))
