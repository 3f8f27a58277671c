"""`echomesh why`: a reply's choice, memories, degradations, timings and trace, from any replica."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from echomesh import Client, Explanation, Message, Timings, UsedMemory
from services.cli.files import CommandError

# A memory is shown as far as a line goes.
_TEXT_CHARS = 100
_LABEL_CHARS = 12


async def find_reply(client: Client, conversation: str, at: datetime | None) -> Message:
    """The newest reply of a conversation, or the newest that was there at a time.

    Raises CommandError if there is none.
    """
    async for message in client.messages(conversation, newest_first=True):
        if message.role == "assistant" and (at is None or message.time <= at):
            return message
    before = f" up to {at.astimezone():%Y-%m-%d %H:%M:%S}" if at else ""
    raise CommandError(f"conversation {conversation} has no reply{before}")


def moment(text: str, now: datetime) -> datetime:
    """A time as people write it: `2:40` (the last time it was that late here), or RFC 3339.

    The whole minute counts where no seconds are given. Raises CommandError.
    """
    for form in ("%H:%M", "%H:%M:%S"):
        try:
            clock = datetime.strptime(text, form).time()  # noqa: DTZ007 - the day is put in below
        except ValueError:
            continue
        found = datetime.combine(now.astimezone().date(), clock).astimezone()
        found = found if found <= now else found - timedelta(days=1)
        return _whole(found, "%S" in form)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text} is no time: give 2:40, or 2026-11-21T02:40:00Z") from None
    return _whole(parsed if parsed.tzinfo else parsed.astimezone(), parsed.second > 0)


def _whole(found: datetime, has_seconds: bool) -> datetime:
    end = found if has_seconds else found + timedelta(seconds=59)
    return end.replace(microsecond=999_999).astimezone(UTC)


def told(why: Explanation, reply: Message | None = None) -> Iterator[str]:
    """An explanation as lines for people; `reply` is shown with it if it is at hand."""
    if reply is not None:
        yield _line("reply", f"“{_cut(reply.text)}”")
    yield _line("message", f"{why.message_id or 'not stored'} in {why.conversation_id or '?'}")
    yield _line("answered", f"{why.reply_id or 'not stored'}{_when(why.time)}")
    choice = why.decision
    yield _line("choice", f"{choice.model or 'none'}: {choice.reason or 'nothing was chosen'}")
    yield _line("", f"{choice.query_type}, tier {choice.tier}, ended by {why.finish_reason}")
    for attempt in why.attempts:
        outcome = attempt.error_reason or "answered"
        yield _line("tried", f"{attempt.model}: {outcome} after {attempt.elapsed_s:.2f} s")
    yield _line("left out", ", ".join(why.degraded) or "nothing")
    yield from _memories(why)
    if why.confidence is not None:
        yield _line("confidence", f"{why.confidence:.0%} that the memories hold an answer")
    yield _line("tokens", f"{why.prompt_tokens} read, {why.completion_tokens} written")
    yield _line("times", _times(why.timings))
    yield _line("trace", why.trace_url or f"{why.trace_id} (no traces_url is set)")


def _memories(why: Explanation) -> Iterator[str]:
    if not why.memories:
        yield _line("memories", "none")
    used = set(why.used_memory_ids)
    for number, memory in enumerate(why.memories):
        mark = "*" if memory.memory_id in used else " "
        yield _line("memories" if number == 0 else "", f"{mark} {_memory(memory)}")
    if why.memories:
        yield _line("", "* the reply rests on it")


def _memory(memory: UsedMemory) -> str:
    text = f"“{_cut(memory.text)}”" if memory.text else "(forgotten)"
    return f"{memory.score:.2f} {memory.time:%Y-%m-%d} {memory.speaker}: {text}"


def _times(timings: Timings) -> str:
    named = {
        "waited": timings.started_s,
        "prepared": timings.prepared_s,
        "first text": timings.first_text_s,
        "last text": timings.generated_s,
    }
    return ", ".join(f"{name} {s:.2f} s" for name, s in named.items() if s is not None)


def _when(time: datetime | None) -> str:
    return f" at {time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _TEXT_CHARS else f"{flat[:_TEXT_CHARS]}…"


def _line(label: str, text: str) -> str:
    return f"{label:{_LABEL_CHARS}}{text}"
