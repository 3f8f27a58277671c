"""vLLM's outputs as the events of a reply. Pure: outputs are read by their attributes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    LikelyToken,
    Text,
    TokenLogprob,
    Usage,
)
from services.models.engines.vllm.tool_calls import Part, ToolCallReader
from services.models.failures import away

_FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class ReplyReader:
    """Takes the outputs of one request, each with what is new since the last.

    Args:
        model: the model's id.
        request: what was asked for.
        prompt_tokens: length of the prompt.

    """

    def __init__(self, model: str, request: Generation, prompt_tokens: int) -> None:
        self._model = model
        self._likeliest = request.logprobs
        self._calls = ToolCallReader() if request.tools else None
        self._usage = Usage(prompt_tokens)
        self._logprobs: tuple[TokenLogprob, ...] = ()
        # Tokens whose text has not come whole: vLLM holds back what may be a stop string.
        self._ahead: deque[TokenLogprob] = deque()
        self._begun = 0

    def take(self, output: Any) -> Iterator[Event]:
        """Yield what an output means; after the last one a Finish.

        Raises:
            AppError: MODEL_UNAVAILABLE when the engine gave the request up.

        """
        (part,) = output.outputs
        self._count(output, part)
        yield from self._text(part)
        if part.finish_reason is not None:
            yield from self._end(part.finish_reason)

    def _count(self, output: Any, part: Any) -> None:
        usage = self._usage
        self._usage = Usage(
            usage.prompt_tokens,
            usage.completion_tokens + len(part.token_ids),
            output.num_cached_tokens or usage.cached_tokens,
        )

    def _text(self, part: Any) -> Iterator[Event]:
        if self._likeliest and part.logprobs:
            places = zip(part.token_ids, part.logprobs, strict=True)
            self._ahead.extend(_place(chosen, at, self._likeliest) for chosen, at in places)
        if self._calls is None:
            self._logprobs += tuple(self._ahead)
            self._ahead.clear()
            if part.text:
                yield self._event(part.text)
            return
        for token_text in self._by_token(part.text):
            for piece in self._calls.take(token_text):
                yield self._event(piece)

    def _by_token(self, text: str) -> Iterator[str]:
        """Cut a text where its tokens end, so that it is known which of them a call is made of."""
        while text and self._ahead:
            if not self._begun:
                self._logprobs += (self._ahead[0],)
            missing = len(self._ahead[0].token) - self._begun
            self._begun += min(missing, len(text))
            yield text[:missing]
            if missing <= len(text):
                self._ahead.popleft()
                self._begun = 0
            text = text[missing:]
        yield text

    def _event(self, piece: Part) -> Event:
        """A tool call, or text with what is known of the tokens up to its end; a call has none."""
        logprobs, self._logprobs = self._logprobs, ()
        return Text(piece, logprobs) if isinstance(piece, str) else piece

    def _end(self, reason: str) -> Iterator[Event]:
        if reason not in _FINISH:
            raise away(self._model, "gave the reply up")
        for piece in self._calls.end() if self._calls else ():
            yield self._event(piece)
        called = self._calls is not None and self._calls.called
        finish = FinishReason.TOOL_CALLS if called else _FINISH[reason]
        yield Finish(finish, self._usage, self._model)


def _place(chosen: int, at: Mapping[int, Any], likeliest: int) -> TokenLogprob:
    """One token and its alternatives, from vLLM's map of token id to log-probability."""
    ranked = sorted(at.values(), key=lambda entry: entry.rank or 0)
    others = (LikelyToken(entry.decoded_token or "", entry.logprob) for entry in ranked)
    mine = at[chosen]
    return TokenLogprob(mine.decoded_token or "", mine.logprob, tuple(others)[:likeliest])
