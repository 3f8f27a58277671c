"""What the responder is given: recalled turns, who is talking, and token vectors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

USER: Final = "\0user"
COMPANION: Final = "\0companion"


@dataclass(frozen=True)
class TokenGrid:
    """The token vectors of one text.

    Attributes:
        vectors: float32 of shape (tokens, dimensions), rows of unit length.
        ids: the vocabulary id of each token.
        starts: where each token begins in the text, in code points.

    """

    vectors: npt.NDArray[np.float32]
    ids: tuple[int, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Turn:
    """A recalled turn, with what memory knows about its place.

    Attributes:
        score: recall's final score, neighbours included.
        fused: recall's own score of the turn, before neighbours.

    """

    id: str
    text: str
    said_at: dt.datetime
    speaker: str = ""
    from_assistant: bool = False
    conversation_id: str = ""
    seq: int = 0
    score: float = 0.0
    fused: float = 0.0
    previous_text: str = ""

    @property
    def day(self) -> dt.date:
        """The day it was said, in UTC."""
        return self.said_at.astimezone(dt.UTC).date()


@dataclass(frozen=True)
class Query:
    """A question, the turns that recall found for it, and the names of the two who talk."""

    text: str
    turns: Sequence[Turn] = ()
    user_name: str = ""
    companion_name: str = ""
    grids: dict[str, TokenGrid] = field(default_factory=dict)
    """Token vectors by text; empty when embeddings are away."""
