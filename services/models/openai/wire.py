"""The Chat Completions format: our requests in it, its answers out of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.models.domain import (
    Finish,
    FinishReason,
    Generation,
    Message,
    Text,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
    estimated_tokens,
)
from services.models.openai import logprobs

DONE = "[DONE]"
# A reply beyond this is a stream that does not end.
MAX_REPLY_BYTES = 4 << 20
# A character has a few tokens at most; what has more without any text is not going to end.
_MAX_SILENT_TOKENS = 1024
_ANY_OBJECT = "{}"

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.STOP,
    "eos": FinishReason.STOP,
}


class Nonsense(Exception):
    """What came is no answer; the text says what is wrong with it, in words safe to show."""


class BrokeOff(Exception):
    """The answer ended before its end."""


class UpstreamSaysError(Exception):
    """An error object where an answer should be."""


def request_body(request: Generation, model: str, *, usage: bool = True) -> dict[str, Any]:
    """Returns the JSON of a streamed chat completion.

    Args:
        request: what is wanted.
        model: the server's own name of the model.
        usage: whether to ask for token counts; some servers refuse that option.

    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_schema:
        body["response_format"] = _response_format(request.response_schema)
    return body | _sampling(request) | logprobs.options(request.logprobs)


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in message.tool_calls
        ]
    return body


def _tool(tool: ToolSpec) -> dict[str, Any]:
    parameters = json.loads(tool.parameters_json or _ANY_OBJECT)
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    if choice == "required":
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(schema: str) -> dict[str, Any]:
    parsed = json.loads(schema)
    if not parsed:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": parsed, "strict": True},
    }


def _sampling(request: Generation) -> dict[str, Any]:
    sampling = request.sampling
    body = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "max_tokens": sampling.max_tokens or None,
    }
    return {key: value for key, value in body.items() if value is not None}


@dataclass
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Reader:
    """Reads the pieces of one reply and knows when it is whole.

    Args:
        model: the catalogue's id, for the Finish.
        prompt: the prompt's text, to estimate usage where the server counts none.

    """

    model: str
    prompt: str
    finished: bool = False
    _text_bytes: int = 0
    _reason: FinishReason = FinishReason.STOP
    _usage: Usage | None = None
    _calls: dict[int, _PartialCall] = field(default_factory=dict)
    # It has written something for itself, and may have had no tokens left for a reply.
    _thought: bool = False
    # Told of tokens that have made no text yet.
    _logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def spoke(self) -> bool:
        """Whether some of the reply is there."""
        return self._text_bytes > 0

    def text_of(self, data: str) -> Text | None:
        """Takes one piece in JSON and returns its text, if it has any.

        Raises:
            Nonsense: it is no piece of a reply, or the reply does not end.
            UpstreamSaysError: it is an error object.

        """
        return self.take(parse_object(data))

    def take(self, piece: Mapping[str, Any]) -> Text | None:
        """Takes one piece and returns its text, if it has any; raises Nonsense as `text_of`."""
        self._usage = _usage(piece.get("usage")) or self._usage
        choices = piece.get("choices")
        if not isinstance(choices, list):
            raise Nonsense("a message of its stream has no choices")
        return self._choice(choices[0]) if choices else None

    def _choice(self, choice: Any) -> Text | None:
        if not isinstance(choice, dict):
            raise Nonsense("a choice of its reply is no object")
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            raise Nonsense("a choice of its reply has no message")
        self._take_calls(delta.get("tool_calls") or [])
        self._take_reason(choice.get("finish_reason"))
        content = delta.get("content") or ""
        if not isinstance(content, str):
            raise Nonsense("its reply's content is no text")
        self._grow(content)
        self._thought = self._thought or bool(delta.get("reasoning_content"))
        if not delta.get("tool_calls"):
            self._take_logprobs(choice)
        return self._piece(_whole(content)) if content else None

    def _piece(self, content: str) -> Text:
        told, self._logprobs = self._logprobs, ()
        return Text(content, told)

    def _take_logprobs(self, choice: dict[str, Any]) -> None:
        try:
            self._logprobs += logprobs.places(choice)
        except ValueError as error:
            raise Nonsense("its log-probabilities are not understood") from error
        if len(self._logprobs) > _MAX_SILENT_TOKENS:
            raise Nonsense("it tells of tokens and not their text")

    def _take_reason(self, reason: Any) -> None:
        # Some servers say "" and not null until the last piece.
        if reason:
            self.finished = True
            self._reason = _FINISH.get(str(reason), FinishReason.STOP)

    def _take_calls(self, calls: Any) -> None:
        if not isinstance(calls, list):
            raise Nonsense("its tool calls are no list")
        for position, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                raise Nonsense("a tool call has no function")
            self._take_call(call, function, position)

    def _take_call(self, call: dict[str, Any], function: dict[str, Any], position: int) -> None:
        index = call.get("index", position)
        if not isinstance(index, int):
            raise Nonsense("a tool call's index is no number")
        partial = self._calls.setdefault(index, _PartialCall())
        partial.id = str(call.get("id") or partial.id)
        partial.name = str(function.get("name") or partial.name)
        arguments = function.get("arguments") or ""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        partial.arguments += _whole(text)
        self._grow(partial.name + text)

    def _grow(self, text: str) -> None:
        self._text_bytes += len(text.encode("utf-8", "surrogatepass"))
        if self._text_bytes > MAX_REPLY_BYTES:
            raise Nonsense("its reply does not end")

    def end(self) -> list[ToolCall | Finish]:
        """Returns the tool calls and the Finish.

        Raises:
            BrokeOff: the stream ended before its finish.
            Nonsense: the reply is empty.

        """
        if not self.finished:
            raise BrokeOff
        calls = [
            ToolCall(call.id or f"call_{index}", call.name, call.arguments or _ANY_OBJECT)
            for index, call in sorted(self._calls.items())
        ]
        if not calls and not self._text_bytes and not self._thought:
            raise Nonsense("its reply is empty")
        reason = FinishReason.TOOL_CALLS if calls else self._reason
        return [*calls, Finish(reason, self._usage or self._estimate(), self.model)]

    def _estimate(self) -> Usage:
        return Usage(estimated_tokens(self.prompt), -(-self._text_bytes // 4))


def parse_object(data: str) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        Nonsense: it is something else.
        UpstreamSaysError: it is an error object.

    """
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise Nonsense("it sent bad JSON") from None
    if not isinstance(parsed, dict):
        raise Nonsense("it sent JSON that is no object")
    if parsed.get("error"):
        raise UpstreamSaysError
    return parsed


def _whole(text: str) -> str:
    """The text with half characters replaced, which JSON can hold and no other encoding can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, Mapping):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    return Usage(
        _count(value.get("prompt_tokens")), _count(value.get("completion_tokens")), _count(cached)
    )


def _count(value: Any, bits: int = 31) -> int:
    """A count as the contract carries it; anything odd counts as none."""
    return value if isinstance(value, int) and 0 <= value < 1 << bits else 0


@dataclass(frozen=True)
class ListedModel:
    """A model that a server lists; 0 tokens of context or 0 parameters: it does not say."""

    name: str
    context_length: int = 0
    parameters: int = 0


def listed_models(data: str) -> list[ListedModel]:
    """Returns the models of a `/models` answer; entries without an id are left out.

    Raises:
        Nonsense: it is no such answer.
        UpstreamSaysError: it is an error object.

    """
    entries = parse_object(data).get("data")
    if not isinstance(entries, list):
        raise Nonsense("its list of models is no list")
    named = (entry for entry in entries if isinstance(entry, dict) and entry.get("id"))
    return [_listed(entry) for entry in named]


def _listed(entry: dict[str, Any]) -> ListedModel:
    """VLLM says max_model_len, llama.cpp meta.n_ctx_train, hosted ones context_length."""
    meta = entry.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    context = entry.get("max_model_len") or entry.get("context_length")
    return ListedModel(
        name=str(entry["id"])[:200],
        context_length=_count(context or meta.get("n_ctx") or meta.get("n_ctx_train")),
        parameters=_count(meta.get("n_params"), 63),
    )
