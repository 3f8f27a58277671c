"""What a Generate request may hold beyond the rules of its proto."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from echomesh.models.v1 import models_pb2 as pb
from services.models.convert import event_from, generation_from, request_from, response_from
from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    LikelyToken,
    Message,
    Role,
    Sampling,
    Text,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
)
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


def test_a_generation_goes_to_a_worker_and_arrives_as_it_was() -> None:
    """All that an engine needs is in the message; evidence is for the extractive model alone."""
    call = ToolCall("call_1", "weather", '{"city": "Leeds"}')
    generation = Generation(
        model="llamacpp/tiny",
        messages=(
            Message(Role.SYSTEM, "Be brief."),
            Message(Role.USER, "Rain?"),
            Message(Role.ASSISTANT, "", tool_calls=(call,)),
            Message(Role.TOOL, "yes", tool_call_id="call_1"),
        ),
        sampling=Sampling(temperature=0.0, top_p=0.5, seed=7, stop=("\n",), max_tokens=9),
        tools=(ToolSpec("weather", "Tells it.", '{"type": "object"}'),),
        response_schema='{"type": "object"}',
        user_name="Ann",
        assistant_name="Echo",
        lora_adapter="terse",
        priority=-3,
        logprobs=2,
    )
    assert generation_from(request_from(generation)) == generation
    plain = Generation(messages=(Message(Role.USER, "Hello."),))
    assert generation_from(request_from(plain)) == plain


@pytest.mark.parametrize(
    "event",
    [
        Text("some"),
        Text("a", (TokenLogprob("a", -0.5, (LikelyToken("a", -0.5), LikelyToken("b", -1.5))),)),
        ToolCall("call_1", "weather", "{}"),
        Finish(FinishReason.LENGTH, Usage(3, 2, 1), "llamacpp/tiny", ("m1",), 0.5),
    ],
)
def test_an_event_comes_back_from_a_worker_as_it_was(event: Event) -> None:
    assert event_from(response_from(event)) == event
