"""Prompt assembly within a token budget: persona, summary, memories, recent turns, message.

The stable part comes first, so that an engine's prefix cache can hold it. Memories are chosen by
relevance with diversity (maximal marginal relevance, Carbonell and Goldstein 1998) and then laid
out in the order of time; recent turns are kept from the newest backwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.routing.domain import PastMessage, PromptMessage, Recollection, Role

CountTokens = Callable[[str], int]

# Weight of relevance against likeness to what is chosen already.
MMR_RELEVANCE = 0.7
# Share of the tokens left after persona and message that memories may take.
MEMORY_TOKEN_SHARE = 0.5
# Tokens a message costs beside its text (role and separators of common chat templates).
MESSAGE_OVERHEAD_TOKENS = 4
# All that recall is asked for: the tokens are the limit. 12 memories left 4 % more of the
# questions of real conversations without all of their evidence.
MAX_MEMORIES = 24
# Of a longer memory, such as a pasted page, the part nearest to the message stands for it.
MAX_MEMORY_CHARS = 1200
# Shorter words of a message ("what", "did") say little about where in a page it is answered.
_TELLING_CHARS = 4

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class PromptParts:
    """What a prompt is made of. `today` dates the memories; `summary` may be empty."""

    persona: str
    message: str
    today: datetime
    user_name: str = ""
    summary: str = ""
    memories: Sequence[Recollection] = ()
    recent: Sequence[PastMessage] = ()
    tail: Sequence[PromptMessage] = ()


@dataclass(frozen=True)
class Prompt:
    """The messages to send, the memories in them (best first) and their size in tokens."""

    messages: tuple[PromptMessage, ...]
    memories: tuple[Recollection, ...]
    tokens: int


def estimate_tokens(text: str) -> int:
    """Return a cautious estimate of the tokens of `text`, for any common tokenizer.

    The larger of 1.3 per word and one per 3.5 bytes, so that scripts without spaces count too.
    """
    words = len(_WORD.findall(text)) * 13 // 10
    return max(words, (len(text.encode()) * 2 + 6) // 7)


def assemble(parts: PromptParts, token_limit: int, count: CountTokens = estimate_tokens) -> Prompt:
    """Return the prompt of `parts` within `token_limit` tokens as counted by `count`.

    Persona and message always go in, whatever they cost; memories, the summary and recent turns
    share what they leave.
    """
    tail = (PromptMessage(Role.USER, parts.message), *parts.tail)
    fixed = _cost(parts.persona, count) + sum(_cost(item.content, count) for item in tail)
    left = max(0, token_limit - fixed)
    summary = parts.summary if _cost(parts.summary, count) <= left // 4 else ""
    left -= _cost(summary, count) if summary else 0
    lines_budget = int(left * MEMORY_TOKEN_SHARE) if parts.recent else left
    candidates = [
        replace(memory, text=excerpt(memory.text, parts.message))
        for memory in _not_in(parts.memories, parts.recent)
    ]
    memories = select_memories(candidates, lines_budget, lambda text: _cost(text, count))
    section = _memory_section(parts, memories)
    left -= count(section)
    recent = _newest_that_fit(parts.recent, left, count)
    system = "\n\n".join(text for text in (parts.persona, summary, section) if text)
    messages = (PromptMessage(Role.SYSTEM, system), *_as_messages(recent), *tail)
    tokens = sum(_cost(message.content, count) for message in messages)
    return Prompt(messages, tuple(memories), tokens)


def select_memories(
    memories: Sequence[Recollection], token_limit: int, cost: CountTokens
) -> list[Recollection]:
    """Return memories by relevance with diversity, best first, whose lines fit `token_limit`.

    Likeness is the Jaccard share of common words: of two memories that say the same, the second
    gives way to one that says something else.
    """
    best = max((memory.score for memory in memories), default=0.0) or 1.0
    words = {memory.id: _words(memory.text) for memory in memories}
    chosen: list[Recollection] = []
    pool = list(memories)
    while pool and len(chosen) < MAX_MEMORIES:
        pick = max(pool, key=lambda memory: _mmr(memory, chosen, words, best))
        pool.remove(pick)
        price = cost(memory_line(pick))
        if price <= token_limit:
            chosen.append(pick)
            token_limit -= price
    return chosen


def excerpt(text: str, message: str) -> str:
    """Return `text`, or of a long one the part that has most of the words of `message`."""
    if len(text) <= MAX_MEMORY_CHARS:
        return text
    wanted = frozenset(word for word in _words(message) if len(word) >= _TELLING_CHARS)
    starts = range(0, len(text) - MAX_MEMORY_CHARS // 2, MAX_MEMORY_CHARS // 2)
    parts = [text[start : start + MAX_MEMORY_CHARS] for start in starts]
    best = max(parts, key=lambda part: len(wanted & _words(part)))
    return f"... {best.strip()} ..."


def memory_line(memory: Recollection) -> str:
    """Return one memory as a dated, attributed line."""
    day = f"{memory.time:%Y-%m-%d}" if memory.time else "undated"
    return f"- [{day}] {memory.speaker or 'someone'}: {' '.join(memory.text.split())}"


def _mmr(
    memory: Recollection,
    chosen: Sequence[Recollection],
    words: dict[str, frozenset[str]],
    best: float,
) -> float:
    likeness = max((_jaccard(words[memory.id], words[other.id]) for other in chosen), default=0.0)
    return MMR_RELEVANCE * memory.score / best - (1 - MMR_RELEVANCE) * likeness


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    union = len(left | right)
    return len(left & right) / union if union else 0.0


def _not_in(memories: Sequence[Recollection], recent: Sequence[PastMessage]) -> list[Recollection]:
    """Return the memories whose message is not among the recent turns already.

    Of turns that the client brought only the words are known.
    """
    shown = {message.id for message in recent if message.id}
    said = {message.text.strip() for message in recent if not message.id}
    return [
        memory
        for memory in memories
        if memory.message_id not in shown and memory.text.strip() not in said
    ]


def _memory_section(parts: PromptParts, memories: Sequence[Recollection]) -> str:
    lines = [f"Today is {parts.today:%A, %d %B %Y}."]
    if parts.user_name:
        lines.append(f"You are talking with {parts.user_name}.")
    if memories:
        lines.append("What you remember (notes, oldest first):")
        lines += [memory_line(memory) for memory in sorted(memories, key=_when)]
    return "\n".join(lines)


def _when(memory: Recollection) -> float:
    return memory.time.timestamp() if memory.time else 0.0


def _cost(text: str, count: CountTokens) -> int:
    return count(text) + MESSAGE_OVERHEAD_TOKENS


def _newest_that_fit(
    recent: Sequence[PastMessage], token_limit: int, count: CountTokens
) -> list[PastMessage]:
    kept: list[PastMessage] = []
    for message in reversed(recent):
        if not message.text:
            continue  # forgotten: nothing was said there
        token_limit -= _cost(message.text, count)
        if token_limit < 0:
            break
        kept.append(message)
    return kept[::-1]


def _as_messages(recent: Sequence[PastMessage]) -> list[PromptMessage]:
    return [
        PromptMessage(Role.ASSISTANT if message.from_assistant else Role.USER, message.text)
        for message in recent
    ]
