"""Server-sent events are the same however the network cuts them."""

from __future__ import annotations

import pytest

from services.models.openai import sse

STREAM = (
    ": hello\n\nevent: a\nid: 7\ndata: one\n\ndata:two\r\ndata: é\r\n\r\n\n\ndata: three"
).encode()
EVENTS = ["one", "two\né", "three"]


def parsed(*chunks: bytes) -> list[str]:
    parser = sse.Parser()
    return [data for chunk in chunks for data in parser.feed(chunk)] + parser.end()


def test_the_data_of_each_event_comes_whole_wherever_the_stream_is_cut() -> None:
    assert parsed(STREAM) == EVENTS
    for place in range(len(STREAM)):
        assert parsed(STREAM[:place], STREAM[place:]) == EVENTS
    assert parsed(*(STREAM[n : n + 1] for n in range(len(STREAM)))) == EVENTS


def test_an_event_is_given_as_soon_as_its_empty_line_is_there() -> None:
    parser = sse.Parser()
    assert parser.feed(b"data: one\n") == []
    assert parser.feed(b"\n") == ["one"]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 600, b"data: " + b"x" * 600 + b"\n"])
def test_a_line_or_an_event_without_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    monkeypatch.setattr(sse, "MAX_LINE_BYTES", 1000)
    parser = sse.Parser()
    parser.feed(piece)
    with pytest.raises(sse.LineTooLong):
        parser.feed(piece)
