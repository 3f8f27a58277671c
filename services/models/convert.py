"""Between the messages of the contract and the domain."""

from __future__ import annotations

import datetime as dt
import json

from echomesh.models.v1 import models_pb2 as pb
from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    LikelyToken,
    Message,
    ModelCard,
    Role,
    Sampling,
    State,
    Text,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
)
from services.models.extractive.turns import Turn
from services.runtime.errors import invalid

# A quote has 40 words and the encoder reads 256 tokens: the rest of a long note only costs time.
MAX_EVIDENCE_CHARS = 4_096

_ROLES = {
    pb.CHAT_ROLE_SYSTEM: Role.SYSTEM,
    pb.CHAT_ROLE_USER: Role.USER,
    pb.CHAT_ROLE_ASSISTANT: Role.ASSISTANT,
    pb.CHAT_ROLE_TOOL: Role.TOOL,
}
_FINISH = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
}
_ROLE_NUMBERS = {role: number for number, role in _ROLES.items()}
_FINISH_REASONS = {number: reason for reason, number in _FINISH.items()}
_STATES = {
    State.READY: pb.MODEL_STATE_READY,
    State.LOADING: pb.MODEL_STATE_LOADING,
    State.ASLEEP: pb.MODEL_STATE_ASLEEP,
    State.AWAY: pb.MODEL_STATE_AWAY,
}


def generation_from(request: pb.GenerateRequest) -> Generation:
    """Returns the generation that is asked for.

    Raises:
        AppError: INVALID_REQUEST for a JSON Schema that is no JSON object.

    """
    for index, tool in enumerate(request.tools):
        if tool.parameters_json:
            _require_object(f"tools[{index}].parameters_json", tool.parameters_json)
    if request.HasField("response_format"):
        _require_object("response_format.json_schema", request.response_format.json_schema)
    return Generation(
        model=request.model,
        messages=tuple(_message(message) for message in request.messages),
        sampling=_sampling(request.sampling),
        tools=tuple(
            ToolSpec(tool.name, tool.description, tool.parameters_json) for tool in request.tools
        ),
        response_schema=request.response_format.json_schema,
        evidence=tuple(_turn(evidence) for evidence in request.evidence),
        user_name=request.user_name,
        assistant_name=request.assistant_name,
        lora_adapter=request.lora_adapter,
        priority=request.priority,
        logprobs=request.logprobs,
        tool_choice=request.tool_choice if request.tools else "",
    )


def _require_object(path: str, text: str) -> None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid(path, "must be JSON") from None
    if not isinstance(parsed, dict):
        raise invalid(path, "must be a JSON object")


def _message(message: pb.ChatMessage) -> Message:
    return Message(
        role=_ROLES[message.role],
        content=message.content,
        tool_call_id=message.tool_call_id,
        tool_calls=tuple(
            ToolCall(call.id, call.name, call.arguments_json) for call in message.tool_calls
        ),
    )


def _sampling(message: pb.Sampling) -> Sampling:
    return Sampling(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        max_tokens=message.max_tokens,
    )


def _turn(evidence: pb.Evidence) -> Turn:
    return Turn(
        id=evidence.id,
        text=evidence.text[:MAX_EVIDENCE_CHARS],
        said_at=_said_at(evidence),
        speaker=evidence.speaker,
        from_assistant=evidence.from_assistant,
        conversation_id=evidence.conversation_id,
        seq=evidence.seq,
        score=evidence.score,
        fused=evidence.fused,
        previous_text=evidence.previous_text[:MAX_EVIDENCE_CHARS],
    )


def _said_at(evidence: pb.Evidence) -> dt.datetime:
    try:
        return evidence.time.ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        raise invalid("evidence.time", "must be a time between the years 1 and 9999") from None


def response_from(event: Event) -> pb.GenerateResponse:
    """Returns one message of the stream."""
    if isinstance(event, Text):
        return pb.GenerateResponse(text=event.text, logprobs=map(_logprob_from, event.logprobs))
    if isinstance(event, ToolCall):
        return pb.GenerateResponse(tool_call=_call_from(event))
    return pb.GenerateResponse(finish=_finish(event))


def _logprob_from(token: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        likeliest=[
            pb.LikelyToken(token=other.token, logprob=other.logprob) for other in token.likeliest
        ],
    )


def _finish(finish: Finish) -> pb.Finish:
    return pb.Finish(
        reason=_FINISH[finish.reason],
        usage=pb.Usage(
            prompt_tokens=finish.usage.prompt_tokens,
            completion_tokens=finish.usage.completion_tokens,
            cached_tokens=finish.usage.cached_tokens,
        ),
        model=finish.model,
        quoted_evidence_ids=finish.quoted,
        confidence=finish.confidence,
    )


def model_from(card: ModelCard) -> pb.Model:
    """Returns an entry of the list of models."""
    return pb.Model(
        id=card.id,
        backend=card.backend,
        state=_STATES[card.state],
        context_length=card.context_length,
        tools=card.tools,
        json_schema=card.json_schema,
        generative=card.generative,
        detail=card.detail,
        lora_adapters=card.lora_adapters,
        logprobs=card.logprobs,
        embeds=card.embeds,
        parameters=card.parameters,
    )


def request_from(generation: Generation) -> pb.GenerateRequest:
    """Returns the message that `generation_from` makes the same generation of; no evidence."""
    return pb.GenerateRequest(
        model=generation.model,
        messages=[_message_from(message) for message in generation.messages],
        sampling=_sampling_from(generation.sampling),
        tools=[
            pb.Tool(
                name=tool.name, description=tool.description, parameters_json=tool.parameters_json
            )
            for tool in generation.tools
        ],
        response_format=pb.ResponseFormat(json_schema=generation.response_schema)
        if generation.response_schema
        else None,
        user_name=generation.user_name,
        assistant_name=generation.assistant_name,
        lora_adapter=generation.lora_adapter,
        priority=generation.priority,
        logprobs=generation.logprobs,
        tool_choice=generation.tool_choice,
    )


def _message_from(message: Message) -> pb.ChatMessage:
    return pb.ChatMessage(
        role=_ROLE_NUMBERS[message.role],
        content=message.content,
        tool_call_id=message.tool_call_id,
        tool_calls=[_call_from(call) for call in message.tool_calls],
    )


def _call_from(call: ToolCall) -> pb.ToolCall:
    return pb.ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json)


def _sampling_from(sampling: Sampling) -> pb.Sampling:
    return pb.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=sampling.stop,
        max_tokens=sampling.max_tokens,
    )


def event_from(response: pb.GenerateResponse) -> Event:
    """Returns the event that `response_from` makes the same message of."""
    kind = response.WhichOneof("event")
    if kind == "text":
        return Text(response.text, tuple(map(_logprob, response.logprobs)))
    if kind == "tool_call":
        call = response.tool_call
        return ToolCall(call.id, call.name, call.arguments_json)
    finish = response.finish
    usage = finish.usage
    return Finish(
        reason=_FINISH_REASONS[finish.reason],
        usage=Usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
        model=finish.model,
        quoted=tuple(finish.quoted_evidence_ids),
        confidence=finish.confidence,
    )


def _logprob(message: pb.TokenLogprob) -> TokenLogprob:
    likeliest = tuple(LikelyToken(other.token, other.logprob) for other in message.likeliest)
    return TokenLogprob(message.token, message.logprob, likeliest)
