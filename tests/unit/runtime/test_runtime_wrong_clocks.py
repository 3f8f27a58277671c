"""Clocks that are put right, and what a service with a wrong one is to its callers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason
from services.runtime.status import DETAILS_KEY, from_rpc_error, to_status
from services.runtime.tokens import AssertionSigner, AssertionVerifier
from services.runtime.trust import create_trust, load_private, load_public

TEN_MINUTES = timedelta(minutes=10)


class JumpyClock(FakeClock):
    """A clock whose wall time can be set while durations stay true."""

    def jump(self, by: timedelta) -> None:
        """Set the wall clock."""
        self._now += by


@pytest.mark.parametrize("off", [TEN_MINUTES, -TEN_MINUTES], ids=["ahead", "behind"])
def test_an_assertion_of_a_wrong_clock_is_not_used_again_once_the_clock_is_right(
    tmp_path: Path, off: timedelta
) -> None:
    create_trust(tmp_path, ("routing", "memory"))
    clock, right = JumpyClock(), FakeClock()
    signer = AssertionSigner("routing", load_private(tmp_path, "routing"), clock)
    verifier = AssertionVerifier("memory", load_public(tmp_path), right)
    clock.jump(off)
    with pytest.raises(AppError):
        verifier.verify(signer.sign("memory"))
    clock.jump(-off)
    assert verifier.verify(signer.sign("memory")).caller == "routing"


def test_a_service_that_does_not_take_our_assertion_is_away_and_not_the_users_fault() -> None:
    refused = AppError(Reason.CALLER_INVALID, "the service assertion has expired")
    code, status = to_status(refused, "0" * 32)
    metadata = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details=refused.message)
    told = from_rpc_error(error, "memory")
    assert told.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert told.metadata == {"dependency": "memory"}
    assert told.retry_after_s
