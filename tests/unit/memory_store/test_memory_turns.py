"""Who runs a chat turn, and which writes count."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory.turns import Begin, Complete, TurnState, begin_again, complete
from services.runtime.errors import AppError, Reason


def turn(epoch: int = 1, *, finished: bool = False, finish_reason: str = "stop") -> TurnState:
    reply = uuid.uuid4() if finished else None
    return TurnState("c1", b"body", uuid.uuid4(), epoch, reply, finish_reason)


def test_memory_finished_turn_is_replayed_and_an_unfinished_one_taken_over() -> None:
    assert Begin.REPLAY is begin_again(turn(finished=True), b"body")
    assert Begin.TAKE_OVER is begin_again(turn(), b"body")


@pytest.mark.parametrize("finished", [True, False])
def test_memory_turn_with_another_body_is_refused(finished: bool) -> None:
    with pytest.raises(AppError) as caught:
        begin_again(turn(finished=finished), b"other")
    assert caught.value.reason == Reason.REQUEST_ID_REUSED


@given(epoch=st.integers(1, 1000), writer=st.integers(1, 1000), finished=st.booleans())
def test_memory_only_the_newest_runner_completes(epoch: int, writer: int, finished: bool) -> None:
    state = turn(epoch, finished=finished)
    if writer == epoch:
        assert (Complete.REPEAT if finished else Complete.STORE) is complete(state, writer)
        return
    with pytest.raises(AppError) as caught:
        complete(state, writer)
    assert caught.value.reason == Reason.TURN_SUPERSEDED
    assert str(epoch) == caught.value.metadata["epoch"]


@pytest.mark.parametrize("reason", ["cancelled", "deadline", "error"])
def test_memory_a_reply_that_was_cut_off_is_no_end_of_its_turn(reason: str) -> None:
    cut_off = turn(finished=True, finish_reason=reason)
    assert Begin.TAKE_OVER is begin_again(cut_off, b"body")
    assert Complete.REPLACE is complete(cut_off, 1)
