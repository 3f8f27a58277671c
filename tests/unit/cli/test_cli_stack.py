"""Rules of the local launcher that need no process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.cli.health import Answer, Reach
from services.cli.keeping import (
    AWAY_LIMIT_S,
    FIRST_PAUSE_S,
    HEALTHY_AFTER_S,
    MAX_PAUSE_S,
    SILENT_ANSWERS,
    Pulse,
    Restarts,
)
from services.cli.plan import Layout, Plan
from services.cli.stack import Stack, concerns
from services.models.config import ModelsSettings


def test_a_part_that_fails_again_and_again_is_started_ever_more_slowly() -> None:
    restarts, now = Restarts(), 1000.0
    pauses = []
    for _ in range(9):
        pauses.append(restarts.next_pause_s(now))
        now += pauses[-1] + 1
    assert pauses == [0.5, 1, 2, 4, 8, 16, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]


def test_a_part_that_lived_for_a_while_is_started_again_at_once() -> None:
    restarts = Restarts()
    for now in (0.0, 1.0, 2.0):
        restarts.next_pause_s(now)
    assert restarts.next_pause_s(2.0 + 2.0 + HEALTHY_AFTER_S) == FIRST_PAUSE_S


def test_a_service_does_not_see_what_is_set_for_another() -> None:
    assert concerns("models", "ECHOMESH_MODELS_UPSTREAMS")
    assert not concerns("memory", "ECHOMESH_MODELS_UPSTREAMS")
    assert concerns("memory", "ECHOMESH_MODELS_TARGET")
    assert concerns("memory", "ECHOMESH_LOG_LEVEL")
    assert concerns("memory", "PATH")


@pytest.mark.parametrize("key", ["ECHOMESH_DRAIN_S", "ECHOMESH_MODELS_DRAIN_S"])
def test_a_local_service_drains_only_if_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    said: list[str] = []
    stack = Stack(Plan(Layout(tmp_path), 7400), said.append, said.append)
    monkeypatch.delenv(key, raising=False)
    assert ModelsSettings.load(stack._environment("models")).drain_s == 0
    monkeypatch.setenv(key, "2")
    assert ModelsSettings.load(stack._environment("models")).drain_s == 2


def test_a_language_model_named_on_the_command_line_reaches_the_models_service() -> None:
    plan = Plan(Layout(Path("/data")), 7400, "http://127.0.0.1:11434/v1", "llama3.2")
    settings = ModelsSettings.load(plan.environment("models", {}))
    assert [(u.url, u.model) for u in settings.upstreams] == [
        ("http://127.0.0.1:11434/v1", "llama3.2")
    ]


def test_a_service_is_frozen_after_several_silent_answers_in_a_row() -> None:
    pulse = Pulse()
    answers = [Answer.SILENT] * (SILENT_ANSWERS - 1) + [Answer.SERVING]
    assert not any(pulse.take(answer, 0.0) for answer in answers * 3)
    assert [bool(pulse.take(Answer.SILENT, 0.0)) for _ in range(SILENT_ANSWERS)] == [
        *([False] * (SILENT_ANSWERS - 1)),
        True,
    ]


def test_a_service_that_starts_or_stops_is_left_alone_for_its_time() -> None:
    pulse = Pulse()
    assert not pulse.take(Answer.AWAY, 0.0)
    assert not pulse.take(Answer.AWAY, AWAY_LIMIT_S)
    assert pulse.take(Answer.AWAY, AWAY_LIMIT_S + 1) == "did not serve for 90 s"


def test_time_away_counts_anew_once_a_service_has_served() -> None:
    pulse = Pulse()
    for now, answer in ((0.0, Answer.AWAY), (50.0, Answer.SERVING), (60.0, Answer.AWAY)):
        assert not pulse.take(answer, now)
    assert not pulse.take(Answer.AWAY, AWAY_LIMIT_S + 1)


class Running:
    """A process that ends when it is told to."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        return -9

    async def stop(self, *, grace_s: float) -> int:
        return 0


async def test_a_part_is_kept_whatever_goes_wrong_with_one_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw costs one attempt; the service is not left down for good."""
    said: list[str] = []
    plan = Plan(Layout(tmp_path), 7400)
    failures = [RuntimeError("can't start new thread"), OSError(28, "No space left on device")]
    first, second = Running(), Running()
    again = asyncio.Event()

    def start(*_: Any) -> Any:
        if failures:
            raise failures.pop(0)
        again.set()
        return second

    monkeypatch.setattr("services.cli.keeping.FIRST_PAUSE_S", 0)
    monkeypatch.setattr("services.cli.stack.start_service", start)
    stack = Stack(plan, said.append, said.append)
    stack._children["memory"] = first  # type: ignore[assignment]
    watcher = asyncio.create_task(stack._keep_up("memory"))
    first.ended.set()
    await asyncio.wait_for(again.wait(), 20)
    assert not watcher.done()
    watcher.cancel()
    assert [line for line in said if "could not be started" in line] == [
        "memory could not be started: can't start new thread",
        "memory could not be started: [Errno 28] No space left on device",
    ]


async def test_what_is_not_reached_in_time_is_named_and_the_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [None, Reach((), ("embeddings", "index")), Reach(("embeddings",), ("index",))]

    async def ask(_address: str, _tls: object) -> Reach | None:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    said: list[str] = []
    monkeypatch.setattr("services.cli.stack.ask_reach", ask)
    stack = Stack(Plan(Layout(tmp_path), 7400), said.append, said.append)
    monkeypatch.setattr("services.cli.stack._CONNECT_S", 0.5)
    await stack._wait_connected("memory")
    assert said == ["memory does without what it cannot reach yet: index"]
    answers[:] = [Reach(("embeddings", "index"), ())]
    await stack._wait_connected("memory")
    assert len(said) == 1
