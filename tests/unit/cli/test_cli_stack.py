"""Rules of the local launcher that need no process."""

from __future__ import annotations

from services.cli.stack import MAX_RESTARTS, Restarts, concerns


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
