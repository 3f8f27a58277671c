"""What a generation is, whatever engine runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol, runtime_checkable

from services.models.extractive.turns import Turn


class Role(StrEnum):
    """Who wrote a message of the prompt; the values are those of the OpenAI API."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(Enum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


class State(Enum):
    """Whether a model can be asked."""

    READY = "ready"
    LOADING = "loading"
    ASLEEP = "asleep"
    AWAY = "away"


@dataclass(frozen=True)
class ToolCall:
    """A call the model asks for; the arguments are JSON text as it wrote them."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True)
class ToolSpec:
    """A tool the model may call; the parameters are a JSON Schema as text."""

    name: str
    description: str
    parameters_json: str


@dataclass(frozen=True)
class Message:
    """One message of the prompt."""

    role: Role
    content: str
    tool_call_id: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens; None and 0 mean the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True)
class Generation:
    """A reply that is wanted.

    Attributes:
        model: an id of the catalogue; empty for the first that can.
        response_schema: JSON Schema text the reply must follow; empty for free text.
        evidence: recalled turns, for backends that answer from them.
        user_name: the name of "I" among the speakers; `assistant_name` that of "you".
        lora_adapter: one of the model's; empty for the model as it is.
        priority: the lowest goes first where requests wait; only a wish.
        logprobs: how many of the likeliest tokens to tell for each token; 0 for none.
        tool_choice: empty (the model's own choice), "required", or the tool to call.

    """

    messages: tuple[Message, ...]
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[ToolSpec, ...] = ()
    response_schema: str = ""
    evidence: tuple[Turn, ...] = ()
    user_name: str = ""
    assistant_name: str = ""
    lora_adapter: str = ""
    priority: int = 0
    logprobs: int = 0
    tool_choice: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class LikelyToken:
    """A token that could stand at a place, and the natural logarithm of its probability."""

    token: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """The token that stands at a place, and the likeliest ones there, likeliest first."""

    token: str
    logprob: float
    likeliest: tuple[LikelyToken, ...] = ()


@dataclass(frozen=True)
class Text:
    """More text of the reply; with the log-probabilities of its tokens if they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finish:
    """The end of the reply; `quoted` and `confidence` come from the extractive model only."""

    reason: FinishReason
    usage: Usage
    model: str
    quoted: tuple[str, ...] = ()
    confidence: float = 0.0


Event = Text | ToolCall | Finish


@dataclass(frozen=True)
class ModelCard:
    """An entry of the catalogue.

    A context length of 0 (tokens) or 0 parameters mean unknown; `detail` says why a model is not
    ready. One that `embeds` makes vectors and no replies. `running` and `waiting` count replies;
    models of one upstream share its places, and so these numbers.
    """

    id: str
    backend: str
    state: State
    context_length: int = 0
    tools: bool = False
    json_schema: bool = False
    generative: bool = True
    detail: str = ""
    lora_adapters: tuple[str, ...] = ()
    logprobs: bool = False
    embeds: bool = False
    parameters: int = 0
    running: int = 0
    waiting: int = 0


class Backend(Protocol):
    """A way to generate replies."""

    def models(self) -> Sequence[ModelCard]:
        """Returns the models it offers now; it may change from call to call."""
        ...

    def generate(self, request: Generation, card: ModelCard) -> AsyncGenerator[Event, None]:
        """Streams a reply that ends with exactly one Finish.

        Closing the iterator, or cancelling its consumer, stops the generation.

        Raises:
            AppError: the model is away, refused the request, or answered nonsense.

        """
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """A backend with its model's own tokenizer at hand."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns how many tokens each text is.

        Raises:
            AppError: MODEL_UNAVAILABLE.

        """
        ...


@dataclass(frozen=True)
class Vector:
    """A text's vector: unit length, little-endian float32; and how many tokens were read.

    What a `truncated` text has beyond what the model reads was left out.
    """

    data: bytes
    tokens: int
    truncated: bool = False


@runtime_checkable
class TextEmbedder(Protocol):
    """A backend whose model may make vectors of texts."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Returns a vector for each text.

        Raises:
            AppError: MODEL_LACKS_ABILITY, MODEL_UNAVAILABLE, MODEL_REFUSED or OVERLOADED.

        """
        ...


def estimated_tokens(text: str) -> int:
    """Returns about how many tokens a text is: a token is about four bytes of English."""
    return -(-len(text.encode()) // 4)
