"""Rules of the local launcher that need no process."""

from __future__ import annotations

from pathlib import Path

from services.cli.plan import Layout, Plan
from services.cli.stack import MAX_RESTARTS, Restarts, concerns
from services.models.config import ModelsSettings


def test_a_part_is_restarted_a_bounded_number_of_times_a_minute() -> None:
    restarts = Restarts()
    assert [restarts.allowed(float(i)) for i in range(MAX_RESTARTS + 1)] == [
        *([True] * MAX_RESTARTS),
        False,
    ]
    assert restarts.allowed(61.0)


def test_a_service_does_not_see_what_is_set_for_another() -> None:
    assert concerns("models", "ECHOMESH_MODELS_UPSTREAMS")
    assert not concerns("memory", "ECHOMESH_MODELS_UPSTREAMS")
    assert concerns("memory", "ECHOMESH_MODELS_TARGET")
    assert concerns("memory", "ECHOMESH_LOG_LEVEL")
    assert concerns("memory", "PATH")


def test_a_language_model_named_on_the_command_line_reaches_the_models_service() -> None:
    plan = Plan(Layout(Path("/data")), 7400, "http://127.0.0.1:11434/v1", "llama3.2")
    settings = ModelsSettings.load(plan.environment("models", {}))
    assert [(u.url, u.model) for u in settings.upstreams] == [
        ("http://127.0.0.1:11434/v1", "llama3.2")
    ]
