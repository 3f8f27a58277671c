"""Fault 19: whatever bytes, sizes and metadata come, every answer is one that the contract knows.

`ECHOMESH_FUZZ` says how many messages; `python -m tests.faults.attack.fuzz` sends 20,000.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from echomesh import Client
from services.runtime.channel import MAX_MESSAGE_BYTES
from tests.faults.attack.answers import INNER_TEXT, Answer, defects
from tests.faults.attack.fuzz import fuzz, pids
from tests.faults.attack.rpcs import Caller, Rpc, all_rpcs
from tests.faults.attack.victims import bearer
from tests.faults.attack.wire import RawClient
from tests.support.mesh import RunningMesh, running_mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

MESSAGES = int(os.environ.get("ECHOMESH_FUZZ", "5000"))
RPCS = all_rpcs()
PUBLIC = [r for r in RPCS if r.listener == "public" and r.method.name in {"WhoAmI", "Recall"}]

_OK = grpc.StatusCode.OK
_TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

Metadata = Sequence[tuple[str, str | bytes]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningMesh]:
    """One mesh for all of this file."""
    folder: Path = tmp_path_factory.mktemp("fuzz") / "data"
    with running_mesh(folder) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def token(mesh: RunningMesh) -> AsyncIterator[str]:
    """A good token of the operator."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        yield (await bearer(client))[0][1].removeprefix("Bearer ")


@pytest_asyncio.fixture(loop_scope="module")
async def caller(mesh: RunningMesh) -> AsyncIterator[Caller]:
    """Whoever calls; afterwards every process must be the one that it was."""
    before, made = pids(mesh), Caller(mesh)
    yield made
    await made.close()
    assert pids(mesh) == before


async def test_fuzzed_messages_get_answers_that_the_contract_knows(
    mesh: RunningMesh, caller: Caller
) -> None:
    """OK or our own ErrorInfo, never UNKNOWN, INTERNAL or Python's text, and all within seconds."""
    report = await fuzz(mesh, MESSAGES)

    assert report.found == []
    assert report.sent == MESSAGES
    for reached in ("OK", "NOT_FOUND", "INVALID_REQUEST", "MALFORMED_REQUEST"):
        assert report.answers[reached] > MESSAGES / 200, reached


async def test_every_rpc_refuses_bytes_that_are_no_message(caller: Caller, token: str) -> None:
    """A deserializer's own words never reach the client."""
    for rpc in RPCS:
        for junk in (b"\xff", b"\x0a\xff", b"\x00" * 9, b"\x0a\x01\xff" * 40, bytes(range(256))):
            answer = await caller.call(rpc, junk, token)
            assert defects(answer) == [], rpc
            # What is no field of this message may be skipped; half a field may not.
            assert answer.code is not _OK or junk != b"\xff", rpc


@pytest.mark.parametrize(
    ("size", "rpcs"),
    [(MAX_MESSAGE_BYTES + 1, RPCS), (16 * 2**20, PUBLIC)],
    ids=["by-one-byte", "16MiB"],
)
async def test_a_message_that_is_too_large_is_refused(
    caller: Caller, token: str, size: int, rpcs: Sequence[Rpc]
) -> None:
    """RESOURCE_EXHAUSTED without details: gRPC itself refuses it before our code runs."""
    for rpc in rpcs:
        answer = await caller.call(rpc, bytes(size), token)
        assert answer.code is _TOO_LARGE, (rpc, answer)
        assert not INNER_TEXT.search(answer.text)
        assert (await caller.call(rpc, b"\xff", token)).code is not _TOO_LARGE


JUNK: dict[str, Metadata] = {
    "text": [("x-junk", "junk")],
    "many": [(f"x-junk-{n}", "v") for n in range(60)],
    "binary": [("x-junk-bin", bytes(range(256)))],
    "a-trace-of-nonsense": [("traceparent", "00-zz-zz-zz"), ("tracestate", "=,=,=" * 9)],
    "a-trace-that-is-long": [("traceparent", "0" * 2_000), ("baggage", "a=b," * 400)],
    "a-foreign-subject": [("x-echomesh-tenant", "other"), ("x-echomesh-user", "other")],
    "a-caller-on-a-public-listener": [("x-echomesh-caller", "routing")],
    "retries": [("grpc-previous-rpc-attempts", "9" * 30)],
    "details": [("grpc-status-details-bin", b"\xff\xff")],
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("rpc", PUBLIC, ids=str)
async def test_junk_beside_a_good_token_changes_nothing(
    caller: Caller, token: str, rpc: Rpc, junk: Metadata
) -> None:
    """Metadata that means nothing is ignored: the answer is the one that comes without it."""
    plain = await caller.call(rpc, b"", token)

    answer = await caller.call(rpc, b"", token, metadata=junk)

    assert (answer.code, answer.reason) == (plain.code, plain.reason)
    assert defects(answer) == []


TOKENS: dict[str, Metadata] = {
    "long": [("authorization", "Bearer " + "a.b.c" * 800)],
    "dots": [("authorization", "Bearer " + "." * 2_000)],
    "nested": [("authorization", "Bearer " + "W1tb" * 1_000 + ".e30.AA")],
}


@pytest.mark.parametrize("junk", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("rpc", PUBLIC, ids=str)
async def test_junk_for_a_token_is_unauthenticated(
    caller: Caller, rpc: Rpc, junk: Metadata
) -> None:
    """Bytes that are no text, and text that is no token."""
    answer = await caller.call(rpc, b"", metadata=junk)

    assert answer.code is _UNAUTHENTICATED, answer
    assert defects(answer) == []


@pytest.mark.parametrize("rpc", PUBLIC, ids=str)
async def test_two_authorizations_are_none(caller: Caller, token: str, rpc: Rpc) -> None:
    """A proxy in front may have checked the first and we the last: neither counts."""
    good, bad = ("authorization", f"Bearer {token}"), ("authorization", "Bearer x.y.z")
    for pair in ([good, bad], [bad, good], [good, good]):
        answer = await caller.call(rpc, b"", metadata=pair)
        assert answer.code is _UNAUTHENTICATED, answer
        assert defects(answer) == []


@pytest.mark.parametrize("size", [20_000, 200_000, 2_000_000])
async def test_metadata_that_is_too_large_is_refused_before_our_code_runs(
    caller: Caller, token: str, size: int
) -> None:
    """By gRPC itself, without harm to other calls on the connection."""
    for rpc in PUBLIC:
        answer: Answer = await caller.call(rpc, b"", token, metadata=[("x-huge", "v" * size)])
        assert answer.code in {_TOO_LARGE, grpc.StatusCode.UNAVAILABLE}, answer
        assert not INNER_TEXT.search(answer.text)
        assert (await caller.call(rpc, b"", token)).code is not _TOO_LARGE


async def test_rpcs_that_do_not_exist_are_unimplemented(caller: Caller, token: str) -> None:
    """Unknown services and methods, odd paths; the words are gRPC's, not Python's."""
    channel = caller.channel("auth", "public")
    for path in (
        "/echomesh.auth.v1.AuthService/Nothing",
        "/nothing.v1.Nothing/Nothing",
        "/echomesh.worker.v1.WorkerService/Heartbeat",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/",
        "/../../etc/passwd",
        "/%00/%ff",
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)(b"", timeout=10, metadata=_authorization(token))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED, path
        assert not INNER_TEXT.search(refused.value.details() or "")


def _authorization(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


ILLEGAL = {
    "latin": b"Bearer \xe9\xe8",
    "utf-8": "Bearer é€😀".encode(),
    "no-utf-8": b"Bearer \xff\xfe\xfd",
    "nul": b"Bearer a\x00b",
    "newline": b"Bearer a\r\nx-echomesh-caller: routing",
    "escape": b"Bearer \x1b[31m",
}


@pytest.mark.parametrize("value", ILLEGAL.values(), ids=ILLEGAL.keys())
async def test_header_bytes_that_no_grpc_client_sends_end_that_call_alone(
    caller: Caller, token: str, value: bytes
) -> None:
    """UNAUTHENTICATED or a broken-off call without a word of Python, and the next one is fine."""
    rpc = next(r for r in PUBLIC if r.method.name == "WhoAmI")
    client = RawClient(caller.address(rpc.service, rpc.listener))
    answer = client.answer(client.request(rpc.path, [(b"authorization", value)]))
    client.close()

    assert answer.status in {None, _UNAUTHENTICATED.value[0]}, answer
    assert answer.status is not None or answer.reset is not None or answer.headers == {}
    assert not INNER_TEXT.search(answer.headers.get(b"grpc-message", b"").decode())
    assert (await caller.call(rpc, b"", token)).code is _OK
