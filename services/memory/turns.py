"""A chat turn: who runs it, and which writes count. Pure decisions over the stored state.

A turn is begun by storing the user's message and ended by storing the reply. Whoever begins it
again with the same request id becomes its runner: the epoch rises and the older runner's reply is
refused. A finished turn is never run again; it is replayed. A reply that was cut off (the client
went away, its deadline passed, the model failed) is kept, and is no end: begun again, the turn is
run again and its reply replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from services.memory.ids import check_same_body
from services.runtime.errors import AppError, Reason

# Finish reasons of a reply that was cut off.
CUT_OFF = frozenset({"cancelled", "deadline", "error"})


@dataclass(frozen=True, slots=True)
class TurnState:
    """A turn as stored. ``reply_id`` and its ``finish_reason`` are set once there is a reply."""

    conversation_id: str
    body_sha256: bytes
    message_id: UUID
    epoch: int
    reply_id: UUID | None
    finish_reason: str = ""

    @property
    def finished(self) -> bool:
        """Whether there is a whole reply."""
        return self.reply_id is not None and self.finish_reason not in CUT_OFF


class Begin(Enum):
    """What beginning a turn that exists already comes to."""

    REPLAY = auto()
    TAKE_OVER = auto()


def begin_again(turn: TurnState, body_sha256: bytes) -> Begin:
    """Decide on a turn begun again; raises REQUEST_ID_REUSED for another body."""
    check_same_body(turn.body_sha256, body_sha256)
    return Begin.REPLAY if turn.finished else Begin.TAKE_OVER


class Complete(Enum):
    """What completing a turn comes to."""

    STORE = auto()
    REPLACE = auto()
    REPEAT = auto()


def complete(turn: TurnState, epoch: int) -> Complete:
    """Decide on a reply written by the runner of ``epoch``.

    The runner's own repeated write is answered as before. Raises TURN_SUPERSEDED for a runner that
    is not the newest.
    """
    if epoch != turn.epoch:
        raise AppError(
            Reason.TURN_SUPERSEDED,
            "a newer caller runs this turn",
            metadata={"epoch": str(turn.epoch)},
        )
    if turn.reply_id is None:
        return Complete.STORE
    return Complete.REPEAT if turn.finished else Complete.REPLACE
