"""How lines become calls: in bounded batches, and with the bad line found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc

from echomesh import EchomeshError, ImportResult, NewMessage
from services.cli import importer


class FakeClient:
    """Refuses, as the mesh does, a batch with NUL in a text, and by itself what has a used id."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}
        self.stored: list[str] = []
        self.largest = 0

    async def import_messages(
        self, conversation: str, messages: Sequence[NewMessage]
    ) -> ImportResult:
        self.largest = max(self.largest, len(messages))
        if any("\0" in m.text for m in messages):
            raise EchomeshError(grpc.StatusCode.INVALID_ARGUMENT, "not valid", "INVALID_REQUEST")
        refused = [m for m in messages if self.used.setdefault(m.request_id, m.text) != m.text]
        self.stored += [m.text for m in messages if m not in refused]
        refused_ids = tuple(m.request_id for m in refused)
        return ImportResult(len(messages) - len(refused), 0, refused_ids)


def line(number: int, **changes: Any) -> bytes:
    content = {
        "conversation": "c",
        "speaker": "Maya",
        "role": "user",
        "text": f"text {number}",
        "time": "2026-03-01T10:00:00Z",
    }
    return json.dumps(content | changes).encode()


async def run(lines: list[bytes]) -> tuple[FakeClient, importer.ImportReport]:
    client = FakeClient()
    report = await importer.import_lines(client, lines, lambda _: None)  # type: ignore[arg-type]
    return client, report


async def test_one_line_that_the_mesh_refuses_is_named_and_the_rest_is_stored() -> None:
    lines = [line(i, text="bad\0" if i == 37 else f"text {i}") for i in range(1, 101)]
    client, report = await run(lines)
    assert [rejected.line for rejected in report.rejected] == [37]
    assert client.stored == [f"text {i}" for i in range(1, 101) if i != 37]
    assert report.stored == 99


async def test_a_line_whose_id_was_stored_as_something_else_is_named_and_the_rest_is_stored() -> (
    None
):
    client = FakeClient()
    lines = [line(i, id=f"id-{i}", text="changed" if i == 3 else f"text {i}") for i in range(1, 6)]
    client.used["import-id-3"] = "text 3"
    report = await importer.import_lines(client, lines, lambda _: None)  # type: ignore[arg-type]
    assert [(r.line, "stored before" in r.reason) for r in report.rejected] == [(3, True)]
    assert (report.stored, len(client.stored)) == (4, 4)


async def test_calls_are_bounded_and_the_order_within_a_conversation_is_kept() -> None:
    client, report = await run([line(i) for i in range(1, 451)])
    assert client.largest <= importer.BATCH
    assert client.stored == [f"text {i}" for i in range(1, 451)]
    assert report.stored == 450


async def test_a_file_of_very_many_conversations_is_stored_whole() -> None:
    count = importer.MAX_OPEN * 2
    client, report = await run([line(i, conversation=f"c{i}") for i in range(count)])
    assert report.stored == count
    assert len(set(client.stored)) == count
