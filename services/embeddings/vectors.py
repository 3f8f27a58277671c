"""What goes into the encoder and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

OBJECT_OVERHEAD_BYTES = 800  # the Python and numpy headers around one `Embedding`, measured


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the model reads it: at most ``max_tokens``, special tokens included.

    `first` and `last` (exclusive) bound the tokens that stand for text; `starts` and `ends` are
    their character offsets (Unicode code points, end exclusive).
    """

    ids: npt.NDArray[np.int64]
    first: int
    last: int
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """One vector per token of text, for late interaction (MaxSim).

    `vectors` is int8 ``[n, dimensions]``; divided by 127 each row has about unit length. `ids` are
    vocabulary ids, `starts` and `ends` character offsets, all int32 ``[n]``.
    """

    vectors: npt.NDArray[np.int8]
    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text's vectors: `vector` is float32 of unit length; `tokens` counts special ones too."""

    vector: npt.NDArray[np.float32]
    token_vectors: TokenVectors
    tokens: int
    truncated: bool

    @property
    def size_bytes(self) -> int:
        """Memory that this embedding takes, about."""
        parts = self.token_vectors
        arrays = (self.vector, parts.vectors, parts.ids, parts.starts, parts.ends)
        return sum(array.nbytes for array in arrays) + OBJECT_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in force: `version` names it with its exact build, as in ``name-q8@1a2b3c4d``."""

    version: str
    dimensions: int
    token_dimensions: int
    max_tokens: int


class Encoder(Protocol):
    """Turns texts into vectors. Both calls block, are called in worker threads, and may overlap."""

    @property
    def info(self) -> ModelInfo:
        """The model's name, version and sizes."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Cut texts into tokens, in order."""
        ...

    def encode(self, batch: Sequence[Tokens]) -> list[Embedding]:
        """Compute a batch's vectors, in order; a text's vectors do not depend on the others."""
        ...
