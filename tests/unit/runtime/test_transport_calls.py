"""What holds for every call between services, whatever its kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from echomesh.common.v1 import errors_pb2
from services.runtime.deadline import deadline_scope, remaining_s
from services.runtime.errors import AppError, Reason, Violation
from services.runtime.identity import Identity, acting_as, current_identity
from services.runtime.status import CODES
from tests.support.transport import SERVICE, Text, method, registration, serving

ALICE = Identity("tenant-1", "alice")


@pytest.fixture(autouse=True, scope="module")
def _tracing() -> None:
    """Spans need a provider; without one every trace id is zero."""
    trace.set_tracer_provider(TracerProvider())


async def echo(request: Any, context: Any) -> Any:
    return Text(value=request.value)


async def fail(request: Any, context: Any) -> Any:
    raise AppError(Reason.NOT_FOUND, "no such thing", metadata={"type": "thing"})


async def fail_stream(request: Any, context: Any) -> AsyncIterator[Any]:
    yield Text(value="first")
    raise AppError(Reason.NOT_FOUND, "no such thing")


async def fail_up(requests: AsyncIterator[Any], context: Any) -> Any:
    async for _ in requests:
        raise AppError(Reason.NOT_FOUND, "no such thing")


async def crash(request: Any, context: Any) -> Any:
    raise RuntimeError("secret inner text")


async def texts(*values: str) -> AsyncIterator[Any]:
    for value in values:
        yield Text(value=value)


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The details of a status by the names of their messages."""
    blob = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    found = {}
    for detail in status_pb2.Status.FromString(blob).details:
        name = detail.type_url.rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        detail.Unpack(found[name])
    return found


def test_every_reason_of_the_contract_exists_in_code_and_has_a_status_code() -> None:
    names = {n.removeprefix("ERROR_REASON_") for n in errors_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert names - {"UNSPECIFIED"} == set(Reason.__members__)
    assert set(CODES) == set(Reason)


async def test_an_error_keeps_its_reason_in_all_four_kinds(tmp_path: Path) -> None:
    service = registration(One=fail, Down=fail_stream, Up=fail_up, Both=fail_stream)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.mesh() as channel:
        with acting_as(ALICE, "token"):
            with pytest.raises(AppError) as one:
                await method(channel, "One")(Text())
            with pytest.raises(AppError) as up:
                await method(channel, "Up")(texts("a"))
            assert [one.value.reason, up.value.reason] == [Reason.NOT_FOUND] * 2
            for kind, request in (("Down", Text()), ("Both", texts("a"))):
                seen = []
                with pytest.raises(AppError) as down:
                    async with aclosing(method(channel, kind)(request)) as responses:
                        async for response in responses:
                            seen.append(response.value)
                assert (down.value.reason, seen) == (Reason.NOT_FOUND, ["first"])


async def test_however_much_is_wrong_with_a_request_the_reason_arrives(tmp_path: Path) -> None:
    """Large metadata is refused by gRPC, which would say RESOURCE_EXHAUSTED instead."""

    async def refuse(request: Any, context: Any) -> Any:
        wrong = [Violation(f"messages[{i}].text", "must not be empty") for i in range(500)]
        raise AppError(Reason.INVALID_REQUEST, "the request is not valid", violations=wrong)

    async with serving(tmp_path, registration(Public=refuse)) as wire, wire.raw() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "Public")(Text())
    found = details_of(caught.value)
    assert found["ErrorInfo"].reason == "INVALID_REQUEST"
    assert found["BadRequest"].field_violations[0].field == "messages[0].text"


async def test_an_uncaught_error_is_internal_with_a_trace_id_and_no_inner_text(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, registration(Public=crash)) as wire, wire.raw() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "Public")(Text())
    found = details_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())
    assert found["ErrorInfo"].reason == "INTERNAL"
    assert len(found["RequestInfo"].request_id.strip("0")) > 0


async def test_bytes_that_are_no_message_are_refused_without_pythons_text(tmp_path: Path) -> None:
    async with serving(tmp_path, registration(Public=echo)) as wire, wire.raw() as channel:
        call = channel.unary_unary(f"/{SERVICE}/Public")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(caught.value)["ErrorInfo"].reason == "MALFORMED_REQUEST"


async def test_the_remaining_time_is_handed_on(tmp_path: Path) -> None:
    seen: list[float] = []

    async def look(request: Any, context: Any) -> Any:
        seen.append(remaining_s())
        return request

    async with serving(tmp_path, registration(Anyone=look)) as wire, wire.mesh() as channel:
        with deadline_scope(3.0):
            await method(channel, "Anyone")(Text())
        with deadline_scope(0.0), pytest.raises(AppError) as late:
            await method(channel, "Anyone")(Text())
    # gRPC rounds the time it sends up by a few milliseconds.
    assert 0 < seen[0] <= 3.1
    assert late.value.reason is Reason.DEADLINE_EXCEEDED


async def test_a_cancelled_caller_stops_the_handler_at_the_other_end(tmp_path: Path) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield Text(value="more")
                started.set()
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    service = registration(Down=endless)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.mesh() as channel:

        async def consume() -> None:
            with acting_as(ALICE, "token"):
                async with aclosing(method(channel, "Down")(Text())) as responses:
                    async for _ in responses:
                        pass

        task = asyncio.create_task(consume())
        await asyncio.wait_for(started.wait(), 30)
        task.cancel()
        await asyncio.wait_for(stopped.wait(), 30)


async def test_leaving_a_stream_early_cancels_the_call(tmp_path: Path) -> None:
    stopped = asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield Text(value="more")
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    service = registration(Down=endless)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.mesh() as channel:
        with acting_as(ALICE, "token"):
            async with aclosing(method(channel, "Down")(Text())) as responses:
                async for _ in responses:
                    break
        await asyncio.wait_for(stopped.wait(), 30)


async def test_a_method_without_a_policy_is_refused_to_everyone(tmp_path: Path) -> None:
    service = registration(NoPolicy=echo)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.mesh() as channel:
        with acting_as(ALICE, "token"), pytest.raises(AppError) as refused:
            await method(channel, "NoPolicy")(Text())
    assert refused.value.reason is Reason.PERMISSION_DENIED


async def test_internal_methods_are_for_the_named_services_and_never_public(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, registration(Internal=echo), validator=_Everyone()) as wire:
        async with wire.mesh("routing") as channel:
            with acting_as(ALICE):
                assert (await method(channel, "Internal")(Text(value="x"))).value == "x"
            with pytest.raises(AppError) as nobody:
                await method(channel, "Internal")(Text())
        async with wire.mesh("embeddings") as channel:
            with acting_as(ALICE), pytest.raises(AppError) as other:
                await method(channel, "Internal")(Text())
        async with wire.raw() as public:
            with pytest.raises(grpc.aio.AioRpcError) as outside:
                await method(public, "Internal")(Text())
    assert nobody.value.reason is Reason.TOKEN_MISSING
    assert other.value.reason is Reason.PERMISSION_DENIED
    assert outside.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_service_may_claim_its_subject_only_for_internal_methods(tmp_path: Path) -> None:
    async with serving(tmp_path, registration(One=echo), validator=_Everyone()) as wire:
        async with wire.mesh() as channel:
            with acting_as(ALICE), pytest.raises(AppError) as refused:
                await method(channel, "One")(Text())
    assert refused.value.reason is Reason.TOKEN_MISSING


async def test_the_handler_runs_as_the_subject_of_the_token(tmp_path: Path) -> None:
    seen: list[Identity] = []

    async def look(request: Any, context: Any) -> Any:
        seen.append(current_identity())
        return request

    service = registration(One=look)
    async with serving(tmp_path, service, validator=_Everyone()) as wire, wire.mesh() as channel:
        with acting_as(ALICE, "bob"):
            await method(channel, "One")(Text())
    assert [(i.user_id, i.caller) for i in seen] == [("bob", "routing")]


async def test_more_calls_than_the_limit_are_refused_with_a_time_to_retry(tmp_path: Path) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        entered.set()
        await leave.wait()
        return request

    service = registration(Public=wait)
    async with serving(tmp_path, service, max_in_flight=1) as wire, wire.raw() as channel:
        first = asyncio.ensure_future(method(channel, "Public")(Text()))
        await asyncio.wait_for(entered.wait(), 30)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(channel, "Public")(Text())
        leave.set()
        await first
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(refused.value)["RetryInfo"].retry_delay.ToMilliseconds() > 0


async def test_two_servers_never_share_a_port(tmp_path: Path) -> None:
    from services.runtime.server import Server
    from services.runtime.settings import ServiceSettings

    async with serving(tmp_path, registration(Public=echo)) as wire:
        settings = ServiceSettings(public_address=wire.server.public_bound, data_dir=tmp_path)
        with pytest.raises(AppError, match="in use"):
            await Server("second", settings).start()


class _Everyone:
    """A validator for which a token is the user's name."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        return Identity("tenant-1", token)
