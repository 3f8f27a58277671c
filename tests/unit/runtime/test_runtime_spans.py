"""Spans and metrics tell the truth however a call ends: answer, error, cancel, deadline, break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.runtime import channel as client_side
from services.runtime import interceptor as server_side
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, acting_as
from services.runtime.tracing import ERROR_TYPE, RPC_METHOD, RPC_STATUS
from tests.support.transport import SERVICE, Text, Wire, method, registration, serving
from tests.support.waiting import overdue

ALICE = Identity("tenant-1", "alice")
_EXPORTER = InMemorySpanExporter()
_OK, _CANCELLED, _LATE, _NOT_FOUND = "OK", "CANCELLED", "DEADLINE_EXCEEDED", "NOT_FOUND"


@pytest.fixture(autouse=True)
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of this test, whatever provider the process has got from others."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
    for module in (client_side, server_side):
        monkeypatch.setattr(module, "_TRACER", provider.get_tracer("test"))
    _EXPORTER.clear()
    yield _EXPORTER
    _EXPORTER.clear()


async def ended(kind: trace.SpanKind, name: str) -> ReadableSpan:
    """The one span of a side of a call, once it has ended."""
    async with asyncio.timeout(30):
        while True:
            for span in _EXPORTER.get_finished_spans():
                if span.kind is kind and span.name == f"{SERVICE}/{name}":
                    return span
            await asyncio.sleep(0.01)


async def both_codes(name: str) -> tuple[str, str]:
    """The status that client and server wrote down."""
    client = await ended(trace.SpanKind.CLIENT, name)
    server = await ended(trace.SpanKind.SERVER, name)
    assert client.attributes is not None
    assert server.attributes is not None
    for span in (client, server):
        assert span.attributes is not None
        assert span.attributes[RPC_METHOD] == span.name
        failed = span.attributes[RPC_STATUS] != _OK
        assert (span.status.status_code is trace.StatusCode.ERROR) == failed
        assert (ERROR_TYPE in span.attributes) == failed
    return str(client.attributes[RPC_STATUS]), str(server.attributes[RPC_STATUS])


async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
    while True:
        yield Text(value="more")
        await asyncio.sleep(0.01)


async def test_the_servers_span_is_a_child_of_the_callers(tmp_path: Path) -> None:
    async def echo(request: Any, context: Any) -> Any:
        return request

    async with serving(tmp_path, registration(Anyone=echo)) as wire, wire.mesh() as channel:
        with client_side._TRACER.start_as_current_span("outer") as outer:
            await method(channel, "Anyone")(Text())
    client = await ended(trace.SpanKind.CLIENT, "Anyone")
    server = await ended(trace.SpanKind.SERVER, "Anyone")
    assert client.parent is not None
    assert server.parent is not None
    assert client.context is not None
    assert client.parent.span_id == outer.get_span_context().span_id
    assert server.parent.span_id == client.context.span_id
    assert await both_codes("Anyone") == (_OK, _OK)


async def test_an_error_is_written_down_on_both_sides(tmp_path: Path) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise AppError(Reason.NOT_FOUND, "no such thing")

    async with serving(tmp_path, registration(Anyone=fail)) as wire, wire.mesh() as channel:
        with pytest.raises(AppError):
            await method(channel, "Anyone")(Text())
    assert await both_codes("Anyone") == (_NOT_FOUND, _NOT_FOUND)


async def test_a_deadline_is_no_unset_status(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        entered.set()
        await asyncio.sleep(60)

    async with serving(tmp_path, registration(Anyone=slow)) as wire, wire.mesh() as channel:
        late = await overdue(lambda: method(channel, "Anyone")(Text()), entered)
    assert late.reason is Reason.DEADLINE_EXCEEDED
    assert await both_codes("Anyone") == (_LATE, _LATE)


async def test_a_cancelled_call_keeps_its_spans(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        entered.set()
        await asyncio.sleep(30)

    async with serving(tmp_path, registration(Anyone=wait)) as wire, wire.mesh() as channel:
        task = asyncio.ensure_future(method(channel, "Anyone")(Text()))
        await asyncio.wait_for(entered.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await both_codes("Anyone") == (_CANCELLED, _CANCELLED)


async def _leave_early(wire: Wire, *, closing: bool) -> None:
    async with wire.mesh() as channel:
        with acting_as(ALICE, "token"):
            stream = method(channel, "Down")(Text())
            if closing:
                async with aclosing(stream) as responses:
                    async for _ in responses:
                        break
            else:
                async for _ in stream:
                    break
                del stream
        assert await both_codes("Down") == (_CANCELLED, _CANCELLED)


@pytest.mark.parametrize("closing", [True, False])
async def test_leaving_a_stream_early_ends_the_call_and_its_spans(
    tmp_path: Path, closing: bool
) -> None:
    async with serving(tmp_path, registration(Down=endless), validator=_Everyone()) as wire:
        await _leave_early(wire, closing=closing)


async def test_a_handler_that_writes_to_the_context_works_too(tmp_path: Path) -> None:
    async def write(request: Any, context: Any) -> None:
        await context.write(Text(value="one"))
        await context.write(Text(value="two"))

    service = registration(Down=write)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.mesh() as channel:
        with acting_as(ALICE, "token"):
            async with aclosing(method(channel, "Down")(Text())) as responses:
                assert [r.value async for r in responses] == ["one", "two"]
        assert await both_codes("Down") == (_OK, _OK)


async def test_health_checks_make_no_spans_and_have_no_deadline(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with serving(tmp_path) as wire, wire.raw(public=False) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="memory"), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service="nonsense"), timeout=30)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert not [s for s in _EXPORTER.get_finished_spans() if "Health" in s.name]


class _Everyone:
    """A validator for which a token is the user's name."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        return Identity("tenant-1", token)
