"""A request as the model reads it: its own chat template, its own tokens."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from services.models.domain import Generation, Message, ToolSpec
from services.models.failures import refused, too_long

T = TypeVar("T")


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages as chat templates expect them: a call's arguments are an object."""
    return [_chat_message(message) for message in messages]


def _chat_message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _object(call.arguments_json)},
            }
            for call in message.tool_calls
        ]
    return made


def chat_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]] | None:
    """Return the tools as chat templates expect them; None without any."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": _object(tool.parameters_json),
            },
        }
        for tool in tools
    ] or None


def _object(text: str) -> Any:
    """The JSON object of a text; what is none is handed over as the text it is."""
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return text


def takes_tools(template: str) -> bool:
    """Whether a chat template looks at the tools it is given."""
    return re.search(r"\btools\b", template) is not None


class Prompts:
    """Turns requests into tokens, on a thread of its own: a long one takes milliseconds.

    Args:
        model: the model's id.
        tokenizer: a Hugging Face tokenizer. It is not made for several threads at once.
        context_length: tokens of prompt and reply together.
        thinking: whether a model that can thinks before it replies.

    """

    def __init__(
        self, model: str, tokenizer: Any, context_length: int, *, thinking: bool = False
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._limit = context_length
        self._thinking = thinking
        self._thread = ThreadPoolExecutor(1, "tokenizer")

    async def of(self, request: Generation) -> list[int]:
        """Return the prompt's token ids, at least one less than the context length.

        Raises:
            AppError: CONTEXT_TOO_LONG, or MODEL_REFUSED when the template does not take it.

        """
        tokens = await self._run(lambda: self._rendered(request))
        if len(tokens) >= self._limit:
            raise too_long(self._model)
        return tokens

    async def of_text(self, text: str) -> tuple[list[int], bool]:
        """Return a text's token ids, special ones included, and whether they were cut to fit."""
        return await self._run(lambda: self._cut(text))

    def _cut(self, text: str) -> tuple[list[int], bool]:
        tokens = list(self._tokenizer.encode(text))
        if len(tokens) <= self._limit:
            return tokens, False
        # The tokenizer itself cuts in front of the special ones at the end.
        return list(self._tokenizer.encode(text, truncation=True, max_length=self._limit)), True

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text is, without special ones."""
        return await self._run(lambda: [len(self._encode(text)) for text in texts])

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _rendered(self, request: Generation) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(
                chat_messages(request.messages),
                tools=chat_tools(request.tools),
                add_generation_prompt=True,
                tokenize=False,
                # Qwen's name for it; a template that does not know it passes it over.
                enable_thinking=self._thinking,
            )
        # A template is a program that came with the model: it may fail in any way.
        except Exception as error:
            raise refused(self._model, "its chat template does not take it") from error
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))
