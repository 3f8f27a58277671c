"""An encoder for tests of the engine: instant, or held until the test lets it go."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from services.embeddings.vectors import Embedding, ModelInfo, Tokens, TokenVectors


class FakeEncoder:
    """One token per word; the vector counts letters. Remembers every batch it was given.

    While `held` is cleared, `encode` waits; `begun` is set when a batch arrives. An `error` is
    raised instead of an answer; a text in `poison` fails its whole batch at that step.
    """

    def __init__(self) -> None:
        self.info = ModelInfo("fake@1", dimensions=26, token_dimensions=2, max_tokens=100)
        self.batches: list[list[str]] = []
        self.held = threading.Event()
        self.held.set()
        self.begun = threading.Event()
        self.error: Exception | None = None
        self.poison: dict[str, str] = {}
        self._texts: dict[bytes, str] = {}

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        self._check("tokenize", texts)
        return [self._tokens(text) for text in texts]

    def encode(self, batch: Sequence[Tokens]) -> list[Embedding]:
        self.batches.append([self._texts[tokens.ids.tobytes()] for tokens in batch])
        self.begun.set()
        assert self.held.wait(10), "the test never let the encoder go"
        self._check("encode", self.batches[-1])
        if self.error:
            raise self.error
        return [self._embedding(tokens) for tokens in batch]

    @property
    def encoded(self) -> list[str]:
        """All texts that were encoded, in order."""
        return [text for batch in self.batches for text in batch]

    def _check(self, step: str, texts: Sequence[str]) -> None:
        if any(self.poison.get(text) == step for text in texts):
            raise ValueError(f"poison at {step}")

    def _tokens(self, text: str) -> Tokens:
        words = text.split()[: self.info.max_tokens]
        ids = np.array([hash(word) for word in words], np.int64)
        self._texts[ids.tobytes()] = text
        places = np.zeros(len(words), np.int32)
        return Tokens(ids, 0, len(words), places, places, len(text.split()) > len(words))

    def _embedding(self, tokens: Tokens) -> Embedding:
        text = self._texts[tokens.ids.tobytes()]
        counts = np.array([text.count(chr(97 + letter)) for letter in range(26)], np.float32)
        vector = counts / max(float(np.linalg.norm(counts)), 1.0)
        parts = TokenVectors(
            np.zeros((len(tokens), 2), np.int8),
            tokens.ids.astype(np.int32),
            tokens.starts,
            tokens.ends,
        )
        return Embedding(vector, parts, len(tokens), tokens.truncated)
