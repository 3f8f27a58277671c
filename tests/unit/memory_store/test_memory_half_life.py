"""A recall's half-life, whatever a Duration may hold."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from echomesh.memory.v1 import memory_pb2
from services.memory.convert import half_life
from services.runtime.errors import AppError, Reason


@pytest.mark.parametrize("seconds", [-(2**63), -1, 0, 2**62, 2**63 - 1])
def test_a_span_that_no_memory_ages_by_is_the_callers_mistake(seconds: int) -> None:
    """None at all, a negative one, and one beyond what can be reckoned with: INVALID_REQUEST."""
    request = memory_pb2.RecallRequest(recency_half_life=Duration(seconds=seconds))

    with pytest.raises(AppError) as refused:
        half_life(request)

    assert refused.value.reason is Reason.INVALID_REQUEST
    assert refused.value.violations[0].field == "recency_half_life"
