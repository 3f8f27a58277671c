"""Between the protos and routing's own types. Nothing is decided here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, routing_pb2
from services.routing import domain


def turn_from(request: chat_pb2.ChatRequest) -> domain.TurnRequest:
    """Return the turn that a Chat request asks for."""
    return domain.TurnRequest(
        request_id=request.request_id,
        conversation_id=request.conversation_id,
        text=request.text,
        body_sha256=body_sha256(request),
        tier=domain.Tier(request.tier),
        model=request.model,
        parent_message_id=request.parent_message_id,
        store=request.store if request.HasField("store") else True,
        recall=request.recall if request.HasField("recall") else True,
        detach=request.detach,
        tools=tuple(
            domain.Tool(tool.name, tool.description, tool.parameters_json) for tool in request.tools
        ),
        tool_messages=tuple(_prompt_message(item) for item in request.tool_messages),
        json_schema=request.response_format.json_schema,
        sampling=_sampling(request.sampling),
        persona=request.persona,
        speaker=request.speaker,
        metadata=dict(request.metadata),
        ensemble=request.ensemble,
        instructions=request.instructions,
        history=_history(request),
        message_key=request.message_key,
        tool_choice="" if request.tool_choice == "auto" else request.tool_choice,
    )


def body_sha256(request: chat_pb2.ChatRequest) -> bytes:
    """Return the hash of a request's meaning: `detach` says how to run it, not what it asks."""
    body = chat_pb2.ChatRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    body.ClearField("detach")
    return hashlib.sha256(body.SerializeToString(deterministic=True)).digest()


def frame_to(frame: domain.Frame, seq: int) -> chat_pb2.ChatResponse:
    """Return the frame as it goes on the wire, with its number."""
    response = chat_pb2.ChatResponse(seq=seq)
    match frame:
        case domain.Accepted():
            response.accepted.CopyFrom(_accepted(frame))
        case domain.Progress():
            response.progress.stage = int(frame.stage)  # type: ignore[assignment]
            response.progress.position = frame.position
        case domain.Decision():
            response.decision.CopyFrom(decision_to(frame))
        case domain.MemoriesUsed():
            response.memories.memories.extend(used_to(memory) for memory in frame.memories)
        case domain.TextDelta():
            response.text.text = frame.text
        case domain.ToolCall():
            response.tool_call.CopyFrom(_tool_call(frame))
        case domain.Restart():
            response.restart.reason = frame.reason
        case domain.Final():
            response.final.CopyFrom(_final(frame))
    return response


def generate_request(request: domain.GenerationRequest) -> models_pb2.GenerateRequest:
    """Return one attempt as models takes it."""
    result = models_pb2.GenerateRequest(
        model=request.model,
        messages=[_message_to(message) for message in request.messages],
        sampling=_sampling_to(request.sampling),
        tools=[
            models_pb2.Tool(
                name=tool.name, description=tool.description, parameters_json=tool.parameters_json
            )
            for tool in request.tools
        ],
        evidence=[_evidence(hit) for hit in request.evidence],
        user_name=request.user_name,
        assistant_name=request.assistant_name,
    )
    result.tool_choice = request.tool_choice
    if request.json_schema:
        result.response_format.json_schema = request.json_schema
    return result


def event_from(response: models_pb2.GenerateResponse) -> domain.GenerationEvent | None:
    """Return what a model sent; None for an event this version does not know."""
    kind = response.WhichOneof("event")
    if kind == "text":
        return response.text
    if kind == "tool_call":
        call = response.tool_call
        return domain.ToolCall(call.id, call.name, call.arguments_json)
    return _finish(response.finish) if kind == "finish" else None


def model_from(model: models_pb2.Model) -> domain.Model:
    """Return a model of the mesh."""
    return domain.Model(
        id=model.id,
        ready=model.state == models_pb2.MODEL_STATE_READY and not model.embeds,
        context_length=model.context_length,
        tools=model.tools,
        json_schema=model.json_schema,
        generative=model.generative,
        parameters=model.parameters,
    )


def message_from(message: conversation_pb2.Message) -> domain.PastMessage:
    """Return a stored message."""
    return domain.PastMessage(
        id=message.id,
        conversation_id=message.conversation_id,
        seq=message.seq,
        from_assistant=message.role == conversation_pb2.MESSAGE_ROLE_ASSISTANT,
        speaker=message.speaker,
        text=message.text,
        time=time_from(message, "time"),
        finish_reason=domain.FinishReason(message.finish_reason),
        model=message.model,
        metadata=dict(message.metadata),
    )


def hit_from(hit: memory_pb2.RecallHit) -> domain.Recollection:
    """Return a recalled memory."""
    memory = hit.memory
    return domain.Recollection(
        id=memory.id,
        text=memory.text,
        score=hit.score,
        fused=hit.scores.fused,
        message_id=memory.message_id,
        conversation_id=memory.conversation_id,
        seq=memory.seq,
        speaker=memory.speaker,
        from_assistant=memory.role == conversation_pb2.MESSAGE_ROLE_ASSISTANT,
        time=time_from(memory, "time"),
        previous_text=hit.previous_text,
        next_text=hit.next_text,
    )


def time_from(message: Message, field: str) -> datetime | None:
    """Return a time of a message in UTC; None where it is unset."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)


def timestamp_to(time: datetime | None) -> Timestamp | None:
    """Return a time as it goes on the wire."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def duration_to(seconds: float | None) -> Duration | None:
    """Return a number of seconds as it goes on the wire."""
    if seconds is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


def _sampling(sampling: models_pb2.Sampling) -> domain.Sampling:
    return domain.Sampling(
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=tuple(sampling.stop),
        max_tokens=sampling.max_tokens,
    )


def _sampling_to(sampling: domain.Sampling) -> models_pb2.Sampling:
    return models_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=sampling.stop,
        max_tokens=sampling.max_tokens,
    )


def _history(request: chat_pb2.ChatRequest) -> tuple[domain.PromptMessage, ...] | None:
    if not request.HasField("history"):
        return None
    return tuple(_prompt_message(item) for item in request.history.messages)


def _prompt_message(message: models_pb2.ChatMessage) -> domain.PromptMessage:
    calls = (domain.ToolCall(c.id, c.name, c.arguments_json) for c in message.tool_calls)
    return domain.PromptMessage(
        domain.Role(message.role), message.content, message.tool_call_id, tuple(calls)
    )


def _message_to(message: domain.PromptMessage) -> models_pb2.ChatMessage:
    return models_pb2.ChatMessage(
        role=int(message.role),  # type: ignore[arg-type]
        content=message.content,
        tool_call_id=message.tool_call_id,
        tool_calls=[_tool_call(call) for call in message.tool_calls],
    )


def _tool_call(call: domain.ToolCall) -> models_pb2.ToolCall:
    return models_pb2.ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json)


def _evidence(hit: domain.Recollection) -> models_pb2.Evidence:
    return models_pb2.Evidence(
        id=hit.id,
        conversation_id=hit.conversation_id,
        seq=hit.seq,
        speaker=hit.speaker,
        from_assistant=hit.from_assistant,
        text=hit.text,
        time=timestamp_to(hit.time),
        score=hit.score,
        fused=hit.fused,
        previous_text=hit.previous_text,
        next_text=hit.next_text,
    )


def _finish(finish: models_pb2.Finish) -> domain.Finish:
    reasons = {
        models_pb2.FINISH_REASON_LENGTH: domain.FinishReason.LENGTH,
        models_pb2.FINISH_REASON_TOOL_CALLS: domain.FinishReason.TOOL_CALLS,
    }
    return domain.Finish(
        reason=reasons.get(finish.reason, domain.FinishReason.STOP),
        model=finish.model,
        usage=usage_from(finish.usage),
        quoted_ids=tuple(finish.quoted_evidence_ids),
        confidence=finish.confidence,
    )


def _accepted(frame: domain.Accepted) -> chat_pb2.Accepted:
    return chat_pb2.Accepted(
        request_id=frame.request_id,
        conversation_id=frame.conversation_id,
        trace_id=frame.trace_id,
        replayed=frame.replayed,
        assistant_name=frame.assistant_name,
    )


def decision_to(decision: domain.Decision) -> chat_pb2.Decision:
    """Return a choice as it goes on the wire."""
    return chat_pb2.Decision(
        tier=int(decision.tier),  # type: ignore[arg-type]
        query_type=int(decision.query_type),  # type: ignore[arg-type]
        model=decision.model,
        reason=decision.reason,
    )


def used_to(memory: domain.Recollection) -> chat_pb2.UsedMemory:
    """Return a memory that was laid before a model as it goes on the wire."""
    return chat_pb2.UsedMemory(
        memory_id=memory.id,
        text=memory.text,
        speaker=memory.speaker,
        time=timestamp_to(memory.time),
        score=memory.score,
        conversation_id=memory.conversation_id,
    )


def usage_to(usage: domain.Usage) -> models_pb2.Usage:
    """Return token counts as they go on the wire."""
    return models_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def usage_from(usage: models_pb2.Usage) -> domain.Usage:
    """Return token counts."""
    return domain.Usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


def _final(final: domain.Final) -> chat_pb2.Final:
    return chat_pb2.Final(
        message_id=final.message_id,
        reply_id=final.reply_id,
        finish_reason=int(final.finish_reason),  # type: ignore[arg-type]
        message_stored=int(final.message_stored),  # type: ignore[arg-type]
        reply_stored=int(final.reply_stored),  # type: ignore[arg-type]
        degraded=final.degraded,
        usage=usage_to(final.usage),
        tier=int(final.tier),  # type: ignore[arg-type]
        model=final.model,
        first_text=duration_to(final.first_text_s),
        total=duration_to(final.total_s),
        trace_id=final.trace_id,
        used_memory_ids=final.used_memory_ids,
        confidence=final.confidence,
    )


def endpoints_to(
    addresses: Iterable[tuple[str, str, bool]], version: str
) -> routing_pb2.GetEndpointsResponse:
    """Return (service, address, tls) triples as endpoints."""
    return routing_pb2.GetEndpointsResponse(
        endpoints=[
            routing_pb2.Endpoint(service=service, address=address, tls=tls)
            for service, address, tls in addresses
        ],
        version=version,
    )
