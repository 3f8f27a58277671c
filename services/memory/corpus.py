"""Term statistics of one user's corpus, as changes to be added up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class CorpusDelta:
    """What a write changes: documents per term, memories per speaker, documents altogether."""

    terms: Counter[str] = field(default_factory=Counter)
    speakers: Counter[str] = field(default_factory=Counter)
    documents: int = 0

    def add(self, terms: Mapping[str, int], speaker: str) -> None:
        """Count a memory that appears."""
        self._count(terms, speaker, 1)

    def remove(self, terms: Mapping[str, int], speaker: str) -> None:
        """Count a memory that goes."""
        self._count(terms, speaker, -1)

    def sorted_terms(self) -> tuple[list[str], list[int]]:
        """Return changed terms and changes, in one order for all writers: no deadlocks."""
        return _sorted(self.terms)

    def sorted_speakers(self) -> tuple[list[str], list[int]]:
        """Return changed speakers and changes, likewise."""
        return _sorted(self.speakers)

    def _count(self, terms: Mapping[str, int], speaker: str, sign: int) -> None:
        for term in terms:
            self.terms[term] += sign
        self.speakers[speaker] += sign
        self.documents += sign


def _sorted(counts: Mapping[str, int]) -> tuple[list[str], list[int]]:
    changed = sorted((key, count) for key, count in counts.items() if count)
    return [key for key, _ in changed], [count for _, count in changed]
