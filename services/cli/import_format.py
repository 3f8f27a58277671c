"""The lines of an import file: one JSON object each (docs/import.schema.json)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from echomesh import NewMessage

MAX_LINE_BYTES = 256 * 1024


class ImportLine(BaseModel):
    """A message as it stands in an import file."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Echomesh import line")

    conversation: Annotated[str, Field(min_length=1, max_length=128)]
    speaker: Annotated[str, Field(min_length=1, max_length=128)]
    role: Literal["user", "assistant"]
    text: Annotated[str, Field(min_length=1, max_length=32768)]
    # RFC 3339, with an offset.
    time: AwareDatetime
    # Stored once however often it is imported. Unset: made from the line's content.
    id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)


@dataclass(frozen=True)
class Parsed:
    """A message to store."""

    line: int
    conversation: str
    message: NewMessage


@dataclass(frozen=True)
class Rejected:
    """A line that is not valid, and why."""

    line: int
    reason: str


def parse(lines: Iterable[bytes]) -> Iterator[Parsed | Rejected]:
    """Read an import file; blank lines are passed over, line numbers count from 1."""
    for number, raw in enumerate(lines, start=1):
        if raw.strip():
            yield _parse_line(number, raw)


def _parse_line(number: int, raw: bytes) -> Parsed | Rejected:
    if len(raw) > MAX_LINE_BYTES:
        return Rejected(number, f"longer than {MAX_LINE_BYTES} bytes")
    try:
        line = ImportLine.model_validate_json(raw)
    except ValidationError as error:
        return Rejected(number, _reason(error))
    return Parsed(number, line.conversation, _message(line))


def _message(line: ImportLine) -> NewMessage:
    return NewMessage(
        role=line.role,
        text=line.text,
        speaker=line.speaker,
        time=line.time,
        metadata=dict(line.metadata),
        request_id=f"import-{line.id}" if line.id else _content_id(line),
    )


def _content_id(line: ImportLine) -> str:
    """The same line imported twice is one message."""
    content = [line.conversation, line.speaker, line.role, line.text, _instant(line.time)]
    return "import-" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _instant(time: datetime) -> float:
    return time.timestamp()


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
