"""What a Generate request may hold beyond the rules of its proto."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from echomesh.models.v1 import models_pb2 as pb
from services.models.convert import generation_from
from services.runtime.errors import AppError, Reason


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253_402_300_800])
def test_evidence_of_an_impossible_time_is_the_callers_mistake(seconds: int) -> None:
    """Before the year 1 or after 9999: INVALID_REQUEST that names the field."""
    evidence = pb.Evidence(text="I was there.", time=Timestamp(seconds=seconds))
    message = pb.ChatMessage(role=pb.CHAT_ROLE_USER, content="When?")

    with pytest.raises(AppError) as refused:
        generation_from(pb.GenerateRequest(messages=[message], evidence=[evidence]))

    assert refused.value.reason is Reason.INVALID_REQUEST
    assert refused.value.violations[0].field == "evidence.time"
