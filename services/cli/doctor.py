"""`echomesh doctor`: check every part and say what to do."""

from __future__ import annotations

import asyncio
import shutil
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx

from echomesh import Client, EchomeshError
from services.cli.connect import Place
from services.cli.doctor_remote import examine_remote
from services.cli.files import CommandError, MeshFile, read_credentials, read_mesh
from services.cli.findings import Finding
from services.cli.health import Answer, MeshTls, ask_health, ask_reach, own_certificate
from services.cli.plan import Layout

# Below this a burst of messages could fill the disk before anyone looks.
LOW_DISK_MB = 500
OLLAMA = "http://127.0.0.1:11434"
_TIMEOUT_S = 3.0
# An index that is well has taken in something of what waits by then.
CATCH_UP_S = 10.0
_LOOK_S = 0.1
# Without these there is nobody to make a round with.
_NEEDED = frozenset(("mesh", "key", "address"))


async def examine(place: Place) -> AsyncIterator[Finding]:
    """Look at a mesh: its parts, and one round through all of them."""
    parts = examine_remote(place) if place.address else examine_local(place.data)
    async for finding in parts:
        yield finding
        if finding.part in _NEEDED and not finding.ok:
            return
    async with place.client() as client:
        for part, check in ROUNDS.items():
            yield await _guarded(part, check, client)


async def examine_local(data: Path) -> AsyncIterator[Finding]:
    """Look at a data folder and the services of its mesh."""
    yield check_disk(data)
    try:
        mesh = read_mesh(data)
        read_credentials(data)
    except CommandError as error:
        yield Finding("mesh", False, str(error), f"echomesh up --data {data}")
        return
    yield check_mode(data / "credentials.json")
    pem = own_certificate(Layout(data)).current if mesh.mutual_tls else None
    for name, address in mesh.services.items():
        tls = MeshTls(pem, name) if pem else None
        yield await check_health(name, address, tls)
    yield await check_language_model(mesh)


def check_disk(data: Path) -> Finding:
    """Room for what people will say."""
    folder = next(p for p in (data, *data.parents) if p.exists())
    free_mb = shutil.disk_usage(folder).free // 2**20
    return Finding("disk", free_mb >= LOW_DISK_MB, f"{free_mb} MB free", "free some disk space")


def check_mode(path: Path) -> Finding:
    """A key that others can read is no secret."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return Finding("credentials", mode == 0o600, f"mode {mode:04o}", f"chmod 600 {path}")


async def check_health(name: str, address: str, tls: MeshTls | None = None) -> Finding:
    """Ask a service for its own health, and for what it reaches of the parts it needs."""
    answer = await ask_health(address, _TIMEOUT_S, tls)
    if answer is not Answer.SERVING:
        advice = f"see the log of {name} in the data folder"
        return Finding(name, False, f"{address}: {answer.value}", advice)
    reach = await ask_reach(address, tls)
    if reach is None:
        return Finding(name, False, "serving, but does not say what it reaches", "try again")
    if reach.missing:
        missing = ", ".join(reach.missing)
        return Finding(name, False, f"serving without {missing}", f"see the logs of {missing}")
    return Finding(name, True, f"serving, reaches {', '.join(reach.reached) or 'nothing'}")


async def check_recall(client: Client) -> Finding:
    """Sign in, embed, search, and read: auth, embeddings, the index and Postgres."""
    result = await client.recall("doctor", limit=1)
    detail = f"degraded: {', '.join(result.degraded)}" if result.degraded else "complete"
    return Finding("recall", not result.degraded, detail, "see the logs of the parts named")


async def check_index(client: Client, limit_s: float = CATCH_UP_S) -> Finding:
    """How far the index is behind; while people talk something always is, and must become less."""
    memories, pending = await client.index_status()
    first, ends = pending, time.monotonic() + limit_s
    while pending and pending >= first and time.monotonic() < ends:
        await asyncio.sleep(_LOOK_S)
        memories, pending = await client.index_status()
    moves = not pending or pending < first
    detail = f"{memories} memories, {pending} pending"
    return Finding("index", moves, detail, f"not one less in {limit_s:.0f} s: see memory's log")


async def check_chat(client: Client) -> Finding:
    """A private message: nothing of it is stored. The tier leaves a busy machine its time."""
    _, final = await client.reply("hello", conversation_id="doctor", store=False, tier="standard")
    detail = f"{final.model} answered in {final.total_s * 1000:.0f} ms"
    return Finding("chat", not final.degraded, detail, f"degraded: {', '.join(final.degraded)}")


ROUNDS: dict[str, Callable[[Client], Awaitable[Finding]]] = {
    "recall": check_recall,
    "index": check_index,
    "chat": check_chat,
}


async def _guarded(
    part: str, check: Callable[[Client], Awaitable[Finding]], client: Client
) -> Finding:
    try:
        return await check(client)
    except EchomeshError as error:
        advice = f"trace {error.trace_id}" if error.trace_id else "is the mesh still up?"
        return Finding(part, False, str(error), advice)


async def check_language_model(mesh: MeshFile) -> Finding:
    """A local Ollama is reported, never used unasked."""
    found = await find_ollama()
    if found is None:
        return Finding("language model", True, "no local Ollama found; answers are quotations")
    return Finding("language model", True, f"a local Ollama serves {found}; {how_to_add(found)}")


async def find_ollama() -> str | None:
    """The first model of a local Ollama, if one is running."""
    try:
        async with httpx.AsyncClient(timeout=0.5) as http:
            models = (await http.get(f"{OLLAMA}/api/tags")).json()["models"]
            return str(models[0]["name"]) if models else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def how_to_add(model: str) -> str:
    """The command that answers with a model of a local Ollama."""
    return f"use it with: echomesh up --openai-url {OLLAMA}/v1 --openai-model {model}"


__all__ = ["Finding", "examine", "find_ollama", "how_to_add"]
