"""From the body of a chat completion to a turn of the mesh. Pure.

**What of it is stored.** A client sends its whole conversation with each request. The mesh stores
the last user message and the reply to it, nothing else: what came before was stored when it was
said. A message that is sent again, for another reply or with the results of tools, is recognised
by the conversation, all that was said before it, and its text: it is answered anew and not stored
twice. Where nothing says what came before, the text tells less: the first message of a conversation
that nobody named counts as sent again on the same day (UTC) only, so that "good morning" is a new
one tomorrow; and in a named one, which the mesh continues from what it has stored, a second "yes"
is a new message, unless tools may have to send it again. What an application or a front end asks
for itself (no user's message at all; Open WebUI's titles and tags) is no message of anybody's, and
leaves memory alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from services.gateway.openai.headers import Asked, MemoryUse
from services.gateway.openai.schema import (
    DEFAULT_MODEL,
    ChatCompletionRequest,
    CompletionRequest,
    ContentPart,
    Message,
    NamedTool,
    ResponseFormat,
    Sampled,
    Tool,
)
from services.runtime.errors import AppError, Reason, invalid

TIERS = {
    f"{DEFAULT_MODEL}-instant": chat_pb2.TIER_INSTANT,
    f"{DEFAULT_MODEL}-fast": chat_pb2.TIER_FAST,
    f"{DEFAULT_MODEL}-standard": chat_pb2.TIER_STANDARD,
}
# How the requests begin that Open WebUI makes on its own account.
ERRAND = "### Task:\n"
# What a message of the mesh holds; see ChatRequest.
MAX_TEXT_BYTES = 32_768
MAX_INSTRUCTIONS_BYTES = 131_072
_ROLES = {
    "user": models_pb2.CHAT_ROLE_USER,
    "assistant": models_pb2.CHAT_ROLE_ASSISTANT,
    "tool": models_pb2.CHAT_ROLE_TOOL,
}
_MEMORY = {
    MemoryUse.ON: (True, True),
    MemoryUse.READ: (False, True),
    MemoryUse.OFF: (False, False),
}


@dataclass(frozen=True)
class Parts:
    """A conversation taken apart: `message` is the user's last one, `tail` what follows it."""

    instructions: str
    history: Sequence[Message]
    message: Message
    tail: Sequence[Message]


def chat_turn(
    body: ChatCompletionRequest, asked: Asked, request_id: str, today: date
) -> chat_pb2.ChatRequest:
    """The turn that a chat completion asks for; raises AppError INVALID_REQUEST, NOT_SUPPORTED."""
    parts = _parts(body.messages)
    text = _required_text(parts.message)
    conversation_id = asked.conversation_id or _unnamed(parts)
    turn = _turn(body, request_id, conversation_id, text, body.max_completion_tokens)
    store, turn.recall = _MEMORY[asked.memory or _usual(parts.message, text)]
    turn.store = store and body.store is not False
    continued = _is_continued(parts, asked)
    if not continued or body.tools or parts.tail:
        is_known = asked.conversation_id and not continued
        turn.message_key = _key(parts, text, "" if is_known else today.isoformat())
    turn.persona = asked.persona
    turn.speaker = parts.message.name or ""
    turn.instructions = _within("messages", parts.instructions, MAX_INSTRUCTIONS_BYTES)
    if not continued:
        turn.history.CopyFrom(_history(parts.history))
    turn.tool_messages.extend(_chat_message(message) for message in parts.tail)
    turn.tools.extend(_tool(tool) for tool in body.tools or ())
    turn.tool_choice = _tool_choice(body.tool_choice)
    if schema := _schema(body.response_format):
        turn.response_format.json_schema = schema
    return turn


def _usual(message: Message, text: str) -> MemoryUse:
    """What a message has to do with memory unless a header says: nothing if nobody said it."""
    said = message.role == "user" and not text.startswith(ERRAND)
    return MemoryUse.ON if said else MemoryUse.OFF


def _is_continued(parts: Parts, asked: Asked) -> bool:
    """Whether what came before is what the mesh has stored, and not what the client sends."""
    return bool(asked.conversation_id) and not parts.history and not asked.brings_history


def completion_turn(body: CompletionRequest, asked: Asked, request_id: str) -> chat_pb2.ChatRequest:
    """The turn that a plain completion asks for; memory is off unless a header says otherwise.

    A prompt is often a whole transcript, which is no message of anybody's.
    """
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    if not prompt:
        raise invalid("prompt", "must not be empty")
    text = _within("prompt", prompt, MAX_TEXT_BYTES)
    conversation_id = asked.conversation_id or "completions"
    turn = _turn(body, request_id, conversation_id, text, None)
    turn.store, turn.recall = _MEMORY[asked.memory or MemoryUse.OFF]
    turn.persona = asked.persona
    turn.history.SetInParent()
    return turn


def _turn(
    body: Sampled, request_id: str, conversation_id: str, text: str, max_tokens: int | None
) -> chat_pb2.ChatRequest:
    tier = TIERS.get(body.model, chat_pb2.TIER_UNSPECIFIED)
    chosen = body.model == DEFAULT_MODEL or bool(tier)
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    return chat_pb2.ChatRequest(
        request_id=request_id,
        conversation_id=conversation_id,
        text=text,
        tier=tier,
        model="" if chosen else body.model,
        sampling=models_pb2.Sampling(
            temperature=_finite("temperature", body.temperature),
            top_p=_finite("top_p", body.top_p),
            seed=body.seed,
            stop=stop or (),
            max_tokens=max_tokens or body.max_tokens or 0,
        ),
    )


def _finite(name: str, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise invalid(name, "must be a number")
    return value


def _parts(messages: Sequence[Message]) -> Parts:
    """Take a conversation apart; without a user message the last instruction is the message."""
    told = [m for m in messages if m.role in ("system", "developer")]
    said = [m for m in messages if m.role not in ("system", "developer")]
    places = [place for place, message in enumerate(said) if message.role == "user"]
    if places:
        last = places[-1]
        history = [m for m in said[:last] if m.role in ("user", "assistant")]
        return Parts(_joined(told), history, said[last], said[last + 1 :])
    if not told or said:
        raise invalid("messages", "must hold a message of the user")
    return Parts(_joined(told[:-1]), (), told[-1], ())


def text_of(message: Message) -> str:
    """The text of a message; raises AppError NOT_SUPPORTED for what is no text."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(_part_text(part) for part in message.content)


def _part_text(part: ContentPart) -> str:
    if part.type not in ("text", "input_text", "refusal"):
        raise AppError(
            Reason.NOT_SUPPORTED,
            f"content of type {part.type} cannot be read: text alone",
            metadata={"feature": "content"},
        )
    return part.text or ""


def _joined(messages: Iterable[Message]) -> str:
    return "\n\n".join(text for message in messages if (text := text_of(message)))


def _required_text(message: Message) -> str:
    text = text_of(message)
    if not text:
        raise invalid("messages", "the last message of the user must not be empty")
    return _within("messages", text, MAX_TEXT_BYTES)


def _within(name: str, text: str, limit_bytes: int) -> str:
    """The text, if it is text and not too long."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise invalid(name, "must be text (a lone surrogate is none)") from None
    if size > limit_bytes:
        raise AppError(
            Reason.CONTEXT_TOO_LONG,
            f"{name}: {size} bytes of text are more than the {limit_bytes} that are taken",
        )
    return text


def _unnamed(parts: Parts) -> str:
    """The id of a conversation that has none: by its first user message, which stays the same."""
    opening = next((m for m in parts.history if m.role == "user"), parts.message)
    return f"openai-{_digest([text_of(opening)])[:32]}"


def _key(parts: Parts, text: str, day: str) -> str:
    """What names the message: all that was said before it, and its text."""
    before = [(message.role, text_of(message).strip()) for message in parts.history]
    return _digest([before or day, text])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _history(messages: Iterable[Message]) -> chat_pb2.History:
    """What was said before, without the calls of tools that led to it."""
    spoken = (_chat_message(message) for message in messages if text_of(message))
    history = chat_pb2.History()
    for message in spoken:
        history.messages.add(role=message.role, content=message.content)
    return history


def _chat_message(message: Message) -> models_pb2.ChatMessage:
    calls = [
        models_pb2.ToolCall(
            id=call.id, name=call.function.name, arguments_json=call.function.arguments
        )
        for call in message.tool_calls or ()
    ]
    return models_pb2.ChatMessage(
        role=_ROLES[message.role],
        content=_within("messages", text_of(message), 1_048_576),
        tool_call_id=message.tool_call_id or "",
        tool_calls=calls,
    )


def _tool(tool: Tool) -> models_pb2.Tool:
    function = tool.function
    return models_pb2.Tool(
        name=function.name,
        description=function.description or "",
        parameters_json=json.dumps(function.parameters) if function.parameters else "",
    )


def _tool_choice(choice: str | NamedTool | None) -> str:
    return choice.function.name if isinstance(choice, NamedTool) else choice or ""


def _schema(wanted: ResponseFormat | None) -> str:
    if wanted is None or wanted.type == "text":
        return ""
    if wanted.type == "json_object":
        return "{}"
    if wanted.json_schema is None:
        raise invalid("response_format.json_schema", "is needed for the type json_schema")
    return json.dumps(wanted.json_schema.body)
