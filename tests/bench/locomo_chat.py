"""The same questions through Chat: quotes, dates, abstentions, and what a model would see."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from tests.bench.locomo_ask import Asked, Corpus, as_user, questions_of
from tests.bench.locomo_data import ANSWERABLE, FALSE_PREMISE, TEMPORAL, Question
from tests.bench.locomo_dates import Span, read_span
from tests.bench.locomo_prompts import PromptReader
from tests.bench.locomo_scores import auroc, mean

MODEL = "extractive"
PROMPT_TIER, PROMPT_TOKENS = "instant", 1500
OTHERS = 67
"""Questions about other people's lives that each history is asked."""

_QUOTATION = re.compile(
    r"""on\ (?P<day>\d{1,2}\ \w+\ \d{4})\ [^:"]{1,140}:\ "(?P<said>[^"]*)"
    (?:\ That\ means\ (?P<meant>[^.]+)\.)?""",
    re.VERBOSE | re.IGNORECASE,
)


class Kind(Enum):
    """What a question deserves."""

    KNOWN = "answerable"
    FALSE = "false premise"
    NEVER = "never mentioned"


class Band(Enum):
    """What a reply says of itself; higher is surer."""

    UNKNOWN = 0
    UNSURE = 1
    ANSWER = 2


@dataclass(frozen=True)
class Reply:
    """A reply to one question: `quoted` are the data's turn ids, best first."""

    kind: Kind
    question: Question
    text: str
    quoted: Sequence[str]
    confidence: float

    @property
    def band(self) -> Band:
        """What it says of itself."""
        if self.text.startswith("I don't know"):
            return Band.UNKNOWN
        return Band.UNSURE if self.text.startswith("I'm not sure") else Band.ANSWER

    def quotes_evidence(self, among: int) -> bool:
        """Whether one of its first `among` quotes is gold evidence."""
        return bool(self.question.evidence.intersection(self.quoted[:among]))

    def date(self) -> Span | None:
        """The days that its first quotation means, in its own words."""
        return read_date(self.text)


def read_date(text: str) -> Span | None:
    """Return the days a reply gives for its first quotation: resolved, quoted, or when said."""
    found = _QUOTATION.search(text)
    if found is None:
        return None
    spans = (read_span(found[name] or "") for name in ("meant", "said", "day"))
    return next((span for span in spans if span is not None), None)


async def print_chat(corpora: Sequence[Corpus], person: str, prompts: PromptReader | None) -> None:
    """Ask everything through Chat and print the figures."""
    replies = []
    for corpus in corpora:
        for kind, asked in _asked(corpora, corpus, person):
            replies.append(await _reply(corpus, kind, asked))
    _print_quotes([one for one in replies if one.kind is Kind.KNOWN], person)
    _print_abstention(replies, person)
    if prompts is not None:
        await _print_context(corpora, person, prompts)


def _asked(corpora: Sequence[Corpus], corpus: Corpus, person: str) -> Iterator[tuple[Kind, Asked]]:
    for asked in questions_of(corpus, person):
        if asked.question.category in ANSWERABLE:
            yield Kind.KNOWN, asked
        elif asked.question.category == FALSE_PREMISE:
            yield Kind.FALSE, asked
    for question in _others(corpora, corpus):
        asked = as_user(corpus, question) if person == "first" else Asked(question, question.text)
        yield Kind.NEVER, asked


def _others(corpora: Sequence[Corpus], corpus: Corpus) -> list[Question]:
    """Questions about the other dialogues' people, asked as if about this one's."""
    mine = corpus.dialogue
    dialogues = {other.dialogue.name: other.dialogue for other in corpora}
    foreign = [
        replace(question, text=_renamed(question.text, other.speakers, mine.speakers))
        for name, other in dialogues.items()
        if name != mine.name
        for question in other.questions
        if question.category in ANSWERABLE
    ]
    histories = sum(one.dialogue.name == mine.name for one in corpora)
    chosen = random.Random(f"{mine.name} {corpus.user}")  # noqa: S311 - the same draw every time
    return chosen.sample(foreign, min(len(foreign), OTHERS // histories))


def _renamed(text: str, names: Sequence[str], to: Sequence[str]) -> str:
    new = dict(zip(names, to, strict=True))
    return re.sub(rf"\b({'|'.join(map(re.escape, names))})\b", lambda m: new[m[0]], text)


async def _reply(corpus: Corpus, kind: Kind, asked: Asked) -> Reply:
    text, final = await corpus.client.reply(
        asked.text, model=MODEL, store=False, speaker=asked.asker
    )
    quoted = [corpus.turn_of[memory_id] for memory_id in final.used_memory_ids]
    return Reply(kind, asked.question, text, quoted, final.confidence or 0.0)


def _percent(values: Sequence[bool]) -> str:
    return f"{100 * mean([float(value) for value in values]):.1f} % of {len(values)}"


def _print_quotes(known: Sequence[Reply], person: str) -> None:
    """Quotes and dates, over the replies that quote something."""
    quoting = [one for one in known if one.quoted]
    first = [one.quotes_evidence(1) for one in quoting]
    either = [one.quotes_evidence(2) for one in quoting]
    print(f"chat, {person} person: quoted turn is evidence {_percent(first)} that quote")
    print(f"  either of two quotes {_percent(either)}")
    print(f"  of all answerable {_percent([one.quotes_evidence(1) for one in known])}")
    dated = [(one.date(), gold) for one in quoting if (gold := _gold_date(one.question))]
    right = [given is not None and given.agrees_with(gold) for given, gold in dated]
    print(f"  date right {_percent(right)} when-questions")


def _gold_date(question: Question) -> Span | None:
    return read_span(question.answer) if question.category == TEMPORAL else None


def _print_abstention(replies: Sequence[Reply], person: str) -> None:
    by_kind = {kind: [one for one in replies if one.kind is kind] for kind in Kind}
    for kind, given in by_kind.items():
        shares = ", ".join(
            f"{name} {100 * mean([float(one.band is band) for one in given]):.0f} %"
            for name, band in (
                ("does not know", Band.UNKNOWN),
                ("is not sure", Band.UNSURE),
                ("answers", Band.ANSWER),
            )
        )
        print(f"  {kind.value:16s} {shares} ({len(given)}, {person} person)")
    sure = {kind: [one.confidence for one in given] for kind, given in by_kind.items()}
    for kind in (Kind.FALSE, Kind.NEVER):
        print(f"  AUROC against {kind.value}: {auroc(sure[Kind.KNOWN], sure[kind]):.3f}")


async def _print_context(corpora: Sequence[Corpus], person: str, prompts: PromptReader) -> None:
    """How much of the gold evidence stands in the prompt that a language model gets."""
    shares, late = [], 0
    for corpus in corpora:
        texts = {turn.id: " ".join(turn.text.split()) for turn in corpus.dialogue.turns}
        for asked in questions_of(corpus, person):
            prompt, was_late = await prompts.prompt_for(
                corpus.client, asked.text, speaker=asked.asker, tier=PROMPT_TIER
            )
            late += was_late
            gold = asked.question.evidence
            shares.append(sum(texts[turn] in prompt for turn in gold) / len(gold))
    whole, some = [share == 1 for share in shares], [share > 0 for share in shares]
    print(f"context of {PROMPT_TOKENS} tokens holds the gold evidence wholly {_percent(whole)}")
    print(f"  partly or wholly {_percent(some)}, {100 * mean(shares):.1f} % of its turns")
    print(f"  {late} prompts had to go without memories, which came late")
