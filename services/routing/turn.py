"""The pure parts of a turn: the order of frames, the text so far, epochs, what is not built yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.routing.domain import (
    Accepted,
    BegunTurn,
    Final,
    Frame,
    PastMessage,
    Recollection,
    Restart,
    TextDelta,
    ToolCall,
    TurnRequest,
)
from services.runtime.errors import AppError, Reason

# What memory takes as one reply; a longer one ends with FinishReason.LENGTH.
MAX_REPLY_BYTES = 262_144


class FrameSequence:
    """Numbers the frames of one call from 1 and holds their order: accepted first, final last."""

    def __init__(self) -> None:
        self._last = 0
        self._ended = False

    def number(self, frame: Frame) -> int:
        """Return the number of `frame`; raises ValueError if it may not come here."""
        if self._last == 0 and not isinstance(frame, Accepted):
            raise ValueError("the first frame must be accepted")
        if self._ended:
            raise ValueError("no frame may follow final")
        self._ended = isinstance(frame, Final)
        self._last += 1
        return self._last


@dataclass
class Transcript:
    """The reply so far, over however many attempts.

    Text of a failed attempt stays until another attempt has text: only then is it void, so that
    a reply whose rescue fails too still ends with what there was.
    """

    text: str = ""
    model: str = ""
    first_text_s: float | None = None
    size_bytes: int = 0
    tool_calls: list[ToolCall] = field(default_factory=list)
    _void_reason: str = field(default="", repr=False)

    def attempt_failed(self, reason: str) -> None:
        """Note that an attempt failed; what there is will be void once another one speaks."""
        if self.text or self.tool_calls:
            self._void_reason = reason

    def add(self, piece: str | ToolCall, model: str, elapsed_s: float) -> list[Frame]:
        """Take a piece of `model` at `elapsed_s` of the call; return the frames to send."""
        frames = self._restart()
        self.model = model
        if self.first_text_s is None:
            self.first_text_s = elapsed_s
        if isinstance(piece, ToolCall):
            self.tool_calls.append(piece)
            return [*frames, piece]
        text = _cut(piece, MAX_REPLY_BYTES - self.size_bytes)
        self.text += text
        self.size_bytes += len(text.encode())
        return [*frames, TextDelta(text)] if text else frames

    def _restart(self) -> list[Frame]:
        """Return the restart frame that is due, and forget what it voids."""
        if not self._void_reason:
            return []
        frame = Restart(self._void_reason)
        self.text, self.size_bytes, self.first_text_s, self._void_reason = "", 0, None, ""
        self.tool_calls.clear()
        return [frame]

    @property
    def full(self) -> bool:
        """Return whether the reply has reached the size memory can take."""
        return self.size_bytes >= MAX_REPLY_BYTES - 3


def _cut(text: str, limit_bytes: int) -> str:
    """Return the longest start of `text` within `limit_bytes` of UTF-8."""
    return text.encode()[: max(0, limit_bytes)].decode(errors="ignore")


def check_supported(turn: TurnRequest) -> None:
    """Raise NOT_SUPPORTED, naming the feature, for what this version cannot do yet."""
    if turn.ensemble:
        raise AppError(
            Reason.NOT_SUPPORTED,
            "asking two models for one reply is not built yet",
            metadata={"feature": "ensemble"},
        )


def rerun_reason(begun: BegunTurn | None) -> str:
    """Return why earlier text of this turn is void: an epoch above 1 means it was begun before."""
    if begun is None or begun.epoch <= 1:
        return ""
    return f"the turn is run again (epoch {begun.epoch})"


def usable_hits(
    hits: Sequence[Recollection], turn: TurnRequest, message: PastMessage | None
) -> tuple[Recollection, ...]:
    """Return the hits a prompt may see: not the message itself nor anything after it.

    Storing and recalling run at once, so recall may find the question. The same words said
    before in the same conversation are no evidence either.
    """
    return tuple(hit for hit in hits if not _is_self(hit, turn, message))


def _is_self(hit: Recollection, turn: TurnRequest, message: PastMessage | None) -> bool:
    if hit.conversation_id != turn.conversation_id or not hit.conversation_id:
        return False
    same_words = not hit.from_assistant and hit.text.strip() == turn.text.strip()
    later = message is not None and 0 < message.seq <= hit.seq
    return same_words or later


def user_name(turn: TurnRequest, hits: Sequence[Recollection]) -> str:
    """Return the user's name: as told, or the one most memories of the user carry; may be empty."""
    if turn.speaker:
        return turn.speaker
    names = Counter(hit.speaker for hit in hits if not hit.from_assistant)
    del names["user"], names[""]
    return names.most_common(1)[0][0] if names else ""
