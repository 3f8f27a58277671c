"""The local mesh: time to start, resident size of each process, and a chat's time to its frames."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import psutil

import echomesh
from echomesh import Client, NewMessage
from tests.support.mesh import RunningMesh, running_mesh

CHATS = 100
HISTORY = 300


def main() -> None:
    """Start twice on one folder, then measure inside the second."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        for label in ("first start", "second start"):
            started = time.monotonic()
            with running_mesh(data) as mesh:
                print(f"{label}: {time.monotonic() - started:.1f} s")
                if label == "second start":
                    asyncio.run(measure_chats(mesh))
                    show_sizes(mesh)


def show_sizes(mesh: RunningMesh) -> None:
    """Unique and resident size by process; Postgres' processes share their buffers."""
    total = 0.0
    for process in mesh.children():
        info = process.memory_full_info()
        rss, uss = info.rss / 2**20, info.uss / 2**20
        total += uss
        command = " ".join(process.cmdline())[:60] or process.name()
        print(f"  {rss:7.0f} MB resident {uss:7.0f} MB unique  {command}")
    own = psutil.Process(mesh.process.pid).memory_full_info()
    print(f"  {own.rss / 2**20:7.0f} MB resident {own.uss / 2**20:7.0f} MB unique  echomesh up")
    print(f"total unique: {total + own.uss / 2**20:.0f} MB")


async def measure_chats(mesh: RunningMesh) -> None:
    """Chat one after the other over a history, and print the percentiles."""
    first_frames, first_texts, totals = [], [], []
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        user = client.as_user("bench")
        lines = [
            NewMessage("user", f"On day {i} I planted tree number {i} near the pond.")
            for i in range(HISTORY)
        ]
        await user.import_messages("history", lines)
        for i in range(CHATS):
            times = await one_chat(user, f"Where did I plant tree number {i}?")
            for kept, value in zip((first_frames, first_texts, totals), times, strict=True):
                kept.append(value * 1000)
    for label, values in (
        ("first frame", first_frames),
        ("first text", first_texts),
        ("whole reply", totals),
    ):
        print(f"chat, {label}: {percentiles(values)} ({CHATS} in a row, {HISTORY} memories)")


async def one_chat(user: Client, text: str) -> tuple[float, float, float]:
    """Seconds to the first frame, the first text, and the final frame, seen by the client."""
    started = time.monotonic()
    first_frame = first_text = 0.0
    async for frame in user.chat(text, conversation_id="bench"):
        elapsed = time.monotonic() - started
        first_frame = first_frame or elapsed
        if isinstance(frame, echomesh.Text):
            first_text = first_text or elapsed
    return first_frame, first_text, time.monotonic() - started


def percentiles(values: list[float]) -> str:
    """p50, p95 and p99 in milliseconds."""
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms"
