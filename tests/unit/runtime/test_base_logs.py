"""Logs: JSON with trace ids, no secrets, no floods, and never a wait for the disk."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from services.runtime import logs as logs_module
from services.runtime.audit import ANCHOR_EVENT, Anchor, AuditLog
from services.runtime.log_filters import MASK, RepeatLimiter, redact, redact_text
from services.runtime.logs import get_logger, setup_logs
from services.runtime.settings import ServiceSettings


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _settings(tmp_path: Path, **more: Any) -> ServiceSettings:
    environ = {"ECHOMESH_DATA_DIR": str(tmp_path)}
    return ServiceSettings.load(environ, log_file=tmp_path / "logs" / "demo.log", **more)


def _lines(tmp_path: Path) -> list[dict[str, Any]]:
    text = (tmp_path / "logs" / "demo.log").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_json_with_service_and_trace_ids(tmp_path: Path) -> None:
    """Lines of structlog and of `logging` both carry the span they were written in."""
    logs = setup_logs("demo", _settings(tmp_path))
    with TracerProvider().get_tracer("t").start_as_current_span("work") as span:
        trace_id = format(span.get_span_context().trace_id, "032x")
        get_logger().info("stored", count=3)
        logging.getLogger("lib").warning("it was %s", "odd")
    logs.close()

    ours, theirs = _lines(tmp_path)
    assert (ours["event"], ours["count"], ours["service"]) == ("stored", 3, "demo")
    assert (theirs["event"], theirs["level"]) == ("it was odd", "warning")
    assert ours["trace_id"] == theirs["trace_id"] == trace_id


def test_an_exception_is_one_line_without_its_secrets(tmp_path: Path) -> None:
    """A traceback stays inside its JSON line and addresses lose their passwords."""
    logs = setup_logs("demo", _settings(tmp_path))
    try:
        raise RuntimeError("cannot reach postgresql://app:hunter2@db/x")
    except RuntimeError:
        get_logger().exception("failed")
    logs.close()

    (line,) = _lines(tmp_path)
    assert "RuntimeError" in line["exception"]
    assert "hunter2" not in line["exception"]


def test_the_level_is_respected(tmp_path: Path) -> None:
    """Debug lines are not written at info."""
    logs = setup_logs("demo", _settings(tmp_path))
    get_logger().debug("detail")
    get_logger().info("fact")
    logs.close()

    assert [line["event"] for line in _lines(tmp_path)] == ["fact"]


def test_old_files_are_compressed_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation leaves gzip files, no more than five."""
    monkeypatch.setattr(logs_module, "_FILE_BYTES", 2000)
    logs = setup_logs("demo", _settings(tmp_path))
    for number in range(200):
        get_logger().info(f"line {number}", filler="x" * 100)
    logs.close()

    packed = sorted((tmp_path / "logs").glob("*.gz"))
    assert len(packed) == 5
    assert json.loads(gzip.decompress(packed[0].read_bytes()).splitlines()[0])["filler"]


def test_a_repeated_line_is_held_back_and_counted() -> None:
    """The first line of the next window says how many were held back."""
    now = [0.0]
    limiter = RepeatLimiter(lambda: now[0], burst=2, window_s=10)

    first = [limiter.admit(("error", "down")) for _ in range(5)]
    other = limiter.admit(("error", "else"))
    now[0] = 10.0

    assert first == [0, 0, None, None, None]
    assert other == 0
    assert limiter.admit(("error", "down")) == 3


def test_named_secrets_are_masked_and_counts_are_not() -> None:
    """`password` goes, `prompt_tokens` stays."""
    event = redact(
        None, "info", {"password": "x", "prompt_tokens": 12, "inner": {"api_key": "k", "n": [1]}}
    )

    assert event == {"password": MASK, "prompt_tokens": 12, "inner": {"api_key": MASK, "n": [1]}}


_WORD = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789_-", min_size=20, max_size=60)


@given(_WORD, st.text(max_size=20))
def test_no_key_or_token_survives_in_text(secret: str, around: str) -> None:
    """API keys, refresh tokens, JWTs and bearer headers are masked wherever they stand."""
    for text in (f"em_abc123_{secret}", f"er_{secret}", f"Bearer {secret}", f"eyJh.{secret}.s"):
        assert secret not in redact_text(f"{around} {text} {around}").replace(around, "")


def test_every_anchor_of_the_audit_log_is_written_whatever_else_is_not(tmp_path: Path) -> None:
    """Neither the least severity nor the limit on repeated lines holds evidence back."""
    logs = setup_logs("demo", _settings(tmp_path, log_level="error"))
    anchors = [Anchor("t", seq, bytes(32)) for seq in range(1, 101)]
    AuditLog("auth").announce(anchors)
    get_logger().info("chatter")
    logs.close()
    lines = _lines(tmp_path)
    assert [line["event"] for line in lines] == [ANCHOR_EVENT] * 100
    assert [line["seq"] for line in lines] == list(range(1, 101))
    assert (lines[0]["log"], lines[0]["tenant_id"], lines[0]["hash"]) == ("auth", "t", "00" * 32)
