"""Logs: structlog lines with trace ids, JSON or pretty, written by a thread and never waited for.

A line passes a bounded queue to one writer thread; when that cannot keep up, lines are dropped
and counted. Records of the standard library's `logging` take the same way.
"""

from __future__ import annotations

import gzip
import logging
import logging.handlers
import queue
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from opentelemetry import trace
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from services.runtime.log_filters import EventDict, RepeatLimiter, redact
from services.runtime.metrics import counter
from services.runtime.settings import ServiceSettings

# 10 MB x 5 compressed: at most about 60 MB of disk for each service.
_FILE_BYTES = 10 * 1000 * 1000
_FILE_BACKUPS = 5
# Lines; about a second of the worst burst we have seen.
_QUEUE_LINES = 10_000
_STOP_TIMEOUT_S = 2.0
_EVIDENCE = "echomesh.evidence"


def get_logger(**context: Any) -> structlog.stdlib.BoundLogger:
    """Return a logger; `context` is on each of its lines. Names come from the calling event."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(**context)
    return logger


def get_evidence_logger() -> structlog.stdlib.BoundLogger:
    """Return a logger for evidence: it is written however severe lines must be elsewhere."""
    logging.getLogger(_EVIDENCE).setLevel(logging.INFO)
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(_EVIDENCE)
    return logger


def add_trace_ids(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Structlog processor: put the current span's `trace_id` and `span_id` on the line."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Queues records as they are; a full queue drops the line and counts it."""

    def __init__(self, lines: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(lines)
        self._dropped = counter("echomesh_log_lines_dropped_total", "Log lines dropped.")

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix what depends on the calling thread; formatting is the writer's work."""
        if not isinstance(record.msg, dict):
            record.msg = record.getMessage()
            record.args = None
            record._trace = add_trace_ids(None, "", {})
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue without waiting."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped.inc()


def _keep_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Take the exception now: the writer's thread has none."""
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


def _add_record_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    event.update(getattr(record, "_trace", {}))
    return event


class _CompressedFileHandler(logging.handlers.RotatingFileHandler):
    """Rotating file whose old parts are gzipped."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, maxBytes=_FILE_BYTES, backupCount=_FILE_BACKUPS, encoding="utf-8")
        self.namer = lambda name: name + ".gz"
        self.rotator = _compress

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Lose the line: a full disk must not fill standard error as well."""


def _compress(source: str, destination: str) -> None:
    with Path(source).open("rb") as plain, gzip.open(destination, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed)
    Path(source).unlink()


class Logs:
    """The process's running log writer."""

    def __init__(self, listener: logging.handlers.QueueListener) -> None:
        self._listener = listener

    def close(self) -> None:
        """Write what is queued and stop; nothing is written after."""
        root = logging.getLogger()
        root.handlers = [h for h in root.handlers if not isinstance(h, _DroppingQueueHandler)]
        self._listener.stop()
        for handler in self._listener.handlers:
            handler.close()


def setup_logs(name: str, settings: ServiceSettings) -> Logs:
    """Set up structlog and `logging` for service `name`; call once, close at the end."""
    level = logging.getLevelName(settings.log_level.upper())
    _configure_structlog(name)
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_LINES)
    listener = logging.handlers.QueueListener(lines, *_handlers(settings))
    root = logging.getLogger()
    root.handlers = [_DroppingQueueHandler(lines)]
    root.setLevel(level)
    # asyncio at debug and grpc's poller tell nothing that an operator could use.
    for noisy in ("asyncio", "grpc", "opentelemetry", "aiohttp", "httpx", "httpcore", "urllib3"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    listener.start()
    return Logs(listener)


def _configure_structlog(name: str) -> None:
    def add_service(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", name)
        return event

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            RepeatLimiter(time.monotonic),
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_service,
            add_trace_ids,
            structlog.processors.StackInfoRenderer(),
            _keep_exception,
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _handlers(settings: ServiceSettings) -> list[logging.Handler]:
    handlers: list[logging.Handler] = []
    if settings.log_file is None or sys.stderr.isatty():
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(_formatter(pretty=_pretty(settings)))
        handlers.append(stream)
    if settings.log_file is not None:
        file = _CompressedFileHandler(settings.log_file)
        file.setFormatter(_formatter(pretty=False))
        handlers.append(file)
    return handlers


def _pretty(settings: ServiceSettings) -> bool:
    if settings.log_format == "auto":
        return sys.stderr.isatty()
    return settings.log_format == "pretty"


def _formatter(*, pretty: bool) -> ProcessorFormatter:
    # Exceptions become text before redaction, on a terminal too.
    plain = structlog.dev.plain_traceback
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain)
        if pretty
        else structlog.processors.JSONRenderer(default=str)
    )
    return ProcessorFormatter(
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        foreign_pre_chain=[
            _add_record_trace,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
    )
