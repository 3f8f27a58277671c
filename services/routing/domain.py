"""What routing talks about: the turn asked for, what is remembered, the models, and the frames.

Enum numbers are those of the protos (a contract test compares them), so that converting them is
the identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum


class Tier(IntEnum):
    """How soon the first text must come."""

    UNSPECIFIED = 0
    INSTANT = 1
    FAST = 2
    STANDARD = 3


class QueryType(IntEnum):
    """What kind of message it is."""

    UNSPECIFIED = 0
    SMALL_TALK = 1
    STATEMENT = 2
    RECALL = 3
    KNOWLEDGE = 4
    REASONING = 5
    CODE = 6
    CREATIVE = 7


class StoreResult(IntEnum):
    """Whether a write is in the database, as far as routing can know."""

    UNSPECIFIED = 0
    STORED = 1
    NOT_STORED = 2
    UNKNOWN = 3


class FinishReason(IntEnum):
    """Why a reply ended."""

    UNSPECIFIED = 0
    STOP = 1
    LENGTH = 2
    CANCELLED = 3
    DEADLINE = 4
    ERROR = 5
    TOOL_CALLS = 6


class Stage(IntEnum):
    """What a turn is busy with."""

    UNSPECIFIED = 0
    QUEUED = 1
    RECALLING = 2
    WAKING = 3
    GENERATING = 4


class Role(IntEnum):
    """Who speaks in a prompt."""

    UNSPECIFIED = 0
    SYSTEM = 1
    USER = 2
    ASSISTANT = 3
    TOOL = 4


@dataclass(frozen=True)
class ToolCall:
    """A call a model asks for; `arguments_json` is as the model wrote it."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True)
class Tool:
    """A tool offered to the model; `parameters_json` is a JSON Schema."""

    name: str
    description: str
    parameters_json: str


@dataclass(frozen=True)
class PromptMessage:
    """One message of a prompt."""

    role: Role
    content: str
    tool_call_id: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How to draw tokens; None leaves it to the model."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True)
class TurnRequest:
    """A Chat call, checked and free of transport. `body_sha256` identifies its body.

    `history` is the conversation as the client has it; None: memory knows it.
    """

    request_id: str
    conversation_id: str
    text: str
    body_sha256: bytes = b""
    tier: Tier = Tier.UNSPECIFIED
    model: str = ""
    parent_message_id: str = ""
    store: bool = True
    recall: bool = True
    detach: bool = False
    tools: tuple[Tool, ...] = ()
    tool_messages: tuple[PromptMessage, ...] = ()
    json_schema: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    persona: str = ""
    speaker: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    ensemble: bool = False
    instructions: str = ""
    history: tuple[PromptMessage, ...] | None = None
    message_key: str = ""
    tool_choice: str = ""


@dataclass(frozen=True)
class PastMessage:
    """A stored message of the conversation."""

    id: str
    conversation_id: str
    seq: int
    from_assistant: bool
    speaker: str
    text: str
    time: datetime | None = None
    finish_reason: FinishReason = FinishReason.UNSPECIFIED
    model: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BegunTurn:
    """What memory answers to the start of a turn; `reply` is set if it is finished already."""

    message: PastMessage
    epoch: int
    reply: PastMessage | None = None
    recent: tuple[PastMessage, ...] = ()


@dataclass(frozen=True)
class Recollection:
    """A recalled memory with its scores and the text around it."""

    id: str
    text: str
    score: float
    fused: float = 0.0
    message_id: str = ""
    conversation_id: str = ""
    seq: int = 0
    speaker: str = ""
    from_assistant: bool = False
    time: datetime | None = None
    previous_text: str = ""
    next_text: str = ""


@dataclass(frozen=True)
class Recalled:
    """The hits of one recall, best first, and what could not take part, each with why."""

    hits: tuple[Recollection, ...] = ()
    degraded: Mapping[str, str] = field(default_factory=dict)


# Measured (`python -m tests.bench answers_by_kind`): of 34 questions about what was said, quoting
# is right in 24 and a model of 0.13e9 parameters in 7. Larger ones are trusted until measured.
SMALL_MODEL_PARAMETERS = 500_000_000


@dataclass(frozen=True)
class Model:
    """A model of the mesh. `context_length` (in tokens) and `parameters` are 0 if unknown."""

    id: str
    ready: bool = True
    context_length: int = 0
    tools: bool = False
    json_schema: bool = False
    generative: bool = True
    parameters: int = 0

    @property
    def small(self) -> bool:
        """Whether it writes fluently and knows little; one of unknown size counts as large."""
        return self.generative and 0 < self.parameters < SMALL_MODEL_PARAMETERS


@dataclass(frozen=True)
class GenerationRequest:
    """One attempt at one model."""

    model: str
    messages: tuple[PromptMessage, ...]
    sampling: Sampling
    tools: tuple[Tool, ...] = ()
    json_schema: str = ""
    evidence: tuple[Recollection, ...] = ()
    user_name: str = ""
    assistant_name: str = ""
    tool_choice: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of a reply."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Finish:
    """The end of a generation; the last two come from the extractive model only.

    `quoted_ids` are the memories it quoted, `confidence` how likely (0..1) they hold an answer.
    """

    reason: FinishReason
    model: str
    usage: Usage = Usage()
    quoted_ids: tuple[str, ...] = ()
    confidence: float | None = None


GenerationEvent = str | ToolCall | Finish


@dataclass(frozen=True)
class Accepted:
    """The request was understood."""

    request_id: str
    conversation_id: str
    trace_id: str
    replayed: bool
    assistant_name: str


@dataclass(frozen=True)
class Progress:
    """What the turn is busy with; `position` counts calls ahead while queued."""

    stage: Stage
    position: int = 0


@dataclass(frozen=True)
class Decision:
    """What was chosen, and why."""

    tier: Tier
    query_type: QueryType
    model: str
    reason: str


@dataclass(frozen=True)
class MemoriesUsed:
    """The memories laid before the model."""

    memories: tuple[Recollection, ...]


@dataclass(frozen=True)
class TextDelta:
    """More text of the reply."""

    text: str


@dataclass(frozen=True)
class Restart:
    """All text so far is void."""

    reason: str


@dataclass(frozen=True)
class Final:
    """What was used and what was stored; `degraded` has why beside each part left out."""

    message_id: str
    reply_id: str
    finish_reason: FinishReason
    message_stored: StoreResult
    reply_stored: StoreResult
    degraded: Mapping[str, str]
    usage: Usage
    tier: Tier
    model: str
    first_text_s: float | None
    total_s: float
    trace_id: str
    used_memory_ids: tuple[str, ...]
    confidence: float | None = None


Frame = Accepted | Progress | Decision | MemoriesUsed | TextDelta | ToolCall | Restart | Final


@dataclass(frozen=True)
class Attempt:
    """One try at one target; `error_reason` is empty if it answered."""

    model: str
    error_reason: str
    elapsed_ms: int


@dataclass(frozen=True)
class Timings:
    """Seconds from the start of the call; None for what did not come to be."""

    started_s: float | None = None
    prepared_s: float | None = None
    first_text_s: float | None = None
    generated_s: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a reply is as it is. Its memories carry no text: that is looked up when it is asked."""

    decision: Decision
    attempts: Sequence[Attempt]
    degraded: Sequence[str]
    trace_id: str
    memories: Sequence[Recollection] = ()
    used_memory_ids: Sequence[str] = ()
    finish_reason: FinishReason = FinishReason.UNSPECIFIED
    usage: Usage = Usage()
    timings: Timings = Timings()
    confidence: float | None = None


@dataclass(frozen=True)
class StoredTurn:
    """A turn as memory has it; what is about the reply is empty while there is none."""

    request_id: str
    conversation_id: str
    message_id: str = ""
    reply_id: str = ""
    replied_at: datetime | None = None
    explanation: Explanation | None = None
