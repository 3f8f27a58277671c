"""Fault 16: whatever the token, one that auth did not give for this gets nobody in."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echomesh import Client
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.common.v1 import options_pb2
from services.runtime.errors import Reason
from tests.faults.attack.answers import Answer, defects
from tests.faults.attack.forged import Forger, forged_assertions, make_forger
from tests.faults.attack.rpcs import Caller, Rpc, all_rpcs
from tests.faults.attack.victims import bearer
from tests.support.contracts import access
from tests.support.mesh import RunningMesh, running_mesh

pytestmark = pytest.mark.timeout(180)

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
_PICKED = {"WhoAmI", "ListConversations", "ListMemories", "Explain", "Chat", "ListUsers"}
# One call of each service, on both listeners, and those that only an administrator may make.
PICKED = [rpc for rpc in all_rpcs() if rpc.method.name in _PICKED]
PUBLIC = [rpc for rpc in PICKED if rpc.listener == "public"]
NEEDS_TOKEN = [r for r in all_rpcs() if access(r.method) == options_pb2.ACCESS_USER]


@dataclass
class World:
    """A mesh, a loop for its callers, a good token and one who forges others."""

    mesh: RunningMesh
    runner: asyncio.Runner
    caller: Caller
    good: str
    forger: Forger

    def ask(self, rpc: Rpc, token: str, **more: Any) -> Answer:
        """Call an RPC with an empty request."""
        return self.runner.run(self.caller.call(rpc, b"", token, **more))

    def auth(self, method: str, request: Any) -> Any:
        """Call auth without a token."""
        return self.runner.run(_auth(self.caller, method, request))


async def _auth(caller: Caller, method: str, request: Any) -> Any:
    stub = auth_pb2_grpc.AuthServiceStub(caller.channel("auth", "public"))
    return await getattr(stub, method)(request, timeout=10)


async def _good_token(mesh: RunningMesh) -> str:
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
        return (await bearer(client))[0][1].removeprefix("Bearer ")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One mesh for all of this file."""
    folder: Path = tmp_path_factory.mktemp("tokens") / "data"
    with running_mesh(folder) as mesh, asyncio.Runner() as runner:
        good = runner.run(_good_token(mesh))
        caller = Caller(mesh)
        yield World(mesh, runner, caller, good, runner.run(make_forger(mesh, good)))
        runner.run(caller.close())


def _check_refused(answer: Answer, what: str) -> None:
    """UNAUTHENTICATED, with our reason, and with no text of the library that said so."""
    assert answer.code is UNAUTHENTICATED, (what, answer)
    assert defects(answer) == [], what


def test_the_forgers_own_key_is_auths(world: World) -> None:
    """Else every refusal below would be for the wrong reason: a good token of theirs gets in."""
    token = world.forger.signed(world.forger.claims)

    for rpc in (r for r in PUBLIC if r.method.name in {"WhoAmI", "ListConversations"}):
        assert world.ask(rpc, token).code is grpc.StatusCode.OK


@pytest.mark.parametrize("rpc", PICKED, ids=str)
def test_no_token_that_others_than_auth_can_make_is_taken(world: World, rpc: Rpc) -> None:
    """Alg none, HS256 with the public key, other keys, kid tricks: TOKEN_INVALID everywhere."""
    for name, token in world.forger.without_auths_key():
        answer = world.ask(rpc, token)
        _check_refused(answer, name)
        assert answer.reason == Reason.TOKEN_INVALID, (name, answer)


@pytest.mark.parametrize("rpc", PICKED, ids=str)
def test_a_true_signature_does_not_save_a_token_that_is_void(world: World, rpc: Rpc) -> None:
    """Expired, not yet valid, for another audience, by another issuer, without an owner."""
    for name, token in world.forger.void():
        answer = world.ask(rpc, token)
        _check_refused(answer, name)
        expected = Reason.TOKEN_EXPIRED if name.startswith("expired") else Reason.TOKEN_INVALID
        assert answer.reason == expected, (name, answer)


@pytest.mark.parametrize("rpc", NEEDS_TOKEN, ids=str)
def test_other_credentials_are_no_access_tokens(world: World, rpc: Rpc) -> None:
    """A key, a refresh token, a service's assertion, and what is no bearer token at all."""
    key = world.mesh.credentials.api_key
    tokens = world.auth("ExchangeApiKey", auth_pb2.ExchangeApiKeyRequest(api_key=key)).tokens
    for token in (key, tokens.refresh_token, world.caller.assertion(rpc.service)):
        _check_refused(world.ask(rpc, token), token[:8])
    for value in ("", "Bearer", "Bearer ", "Basic YTpi", f"Token {world.good}", "bearer  "):
        answer = world.ask(rpc, "", metadata=[("authorization", value)])
        _check_refused(answer, repr(value))


@pytest.mark.parametrize("rpc", [r for r in PICKED if r.listener == "mesh"], ids=str)
def test_nobody_passes_for_a_service_of_the_mesh(world: World, rpc: Rpc) -> None:
    """A good user's token does not help who cannot name the service they are."""
    public = Rpc(rpc.method, rpc.service, "public")
    address = world.caller.address(rpc.service, "mesh")

    async def ask(assertion: str) -> Answer:
        elsewhere = Caller(world.mesh)
        elsewhere._channels[rpc.service, "public"] = grpc.aio.insecure_channel(address)
        metadata = [("x-echomesh-caller", assertion)]
        answer = await elsewhere.call(public, b"", world.good, metadata=metadata)
        await elsewhere.close()
        return answer

    for name, assertion in forged_assertions(world.mesh, rpc.service):
        answer = world.runner.run(ask(assertion))
        _check_refused(answer, name)
        assert answer.reason == Reason.CALLER_INVALID, (name, answer)


def _mutations(token: str) -> st.SearchStrategy[str]:
    """The token with characters changed, dropped or added, or its parts in another order."""
    alphabet = st.sampled_from("ABCabc019-_.=+/ ~{}\"'%\\")
    place = st.integers(0, len(token) - 1)
    parts = token.split(".")
    return st.one_of(
        st.builds(lambda i, c: token[:i] + c + token[i + 1 :], place, alphabet),
        st.builds(lambda i, c: token[:i] + c + token[i:], place, alphabet),
        st.builds(lambda i, j: token[: min(i, j)] + token[max(i, j) :], place, place),
        st.builds(lambda i: token[:i], place),
        st.lists(st.sampled_from(parts), min_size=0, max_size=6).map(".".join),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300),
    )


@pytest.mark.parametrize("rpc", PUBLIC[:3], ids=str)
def test_a_token_with_anything_changed_is_no_token(world: World, rpc: Rpc) -> None:
    """Cut, changed or rearranged anywhere, down to the last bit of its signature."""

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_mutations(world.good))
    def check(token: str) -> None:
        if token.strip() == world.good:
            return
        _check_refused(world.ask(rpc, "", metadata=_authorization(token)), token)

    check()
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=!":
        if last != world.good[-1]:
            _check_refused(world.ask(rpc, world.good[:-1] + last), f"its last letter is {last}")


def _authorization(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def _sign_in(world: World) -> auth_pb2.Tokens:
    request = auth_pb2.ExchangeApiKeyRequest(api_key=world.mesh.credentials.api_key)
    tokens: auth_pb2.Tokens = world.auth("ExchangeApiKey", request).tokens
    return tokens


def _refresh(world: World, token: str, request_id: str) -> Answer | auth_pb2.Tokens:
    rpc = next(r for r in all_rpcs() if r.method.name == "Refresh" and r.listener == "public")
    request = auth_pb2.RefreshRequest(refresh_token=token, request_id=request_id)
    answer = world.runner.run(world.caller.call(rpc, request.SerializeToString()))
    if answer.code is grpc.StatusCode.OK:
        return auth_pb2.RefreshResponse.FromString(answer.body).tokens
    return answer


def test_a_stolen_refresh_token_ends_the_sign_in_that_it_came_from(world: World) -> None:
    """Used a second time by somebody else, the thief's successor and the owner's are both void."""
    stolen = _sign_in(world).refresh_token
    owners = _refresh(world, stolen, "owner")
    assert isinstance(owners, auth_pb2.Tokens)

    thiefs = _refresh(world, stolen, "thief")
    later = _refresh(world, owners.refresh_token, "owner-again")

    for answer in (thiefs, later):
        assert isinstance(answer, Answer)
        _check_refused(answer, "reuse")
        assert answer.reason == Reason.REFRESH_TOKEN_REUSED


def test_a_refresh_whose_answer_was_lost_can_be_asked_again(world: World) -> None:
    """The same request_id within a minute is the same client: a successor, and no alarm."""
    old, request_id = _sign_in(world).refresh_token, str(uuid.uuid4())
    answers = [_refresh(world, old, request_id) for _ in range(3)]

    assert all(isinstance(answer, auth_pb2.Tokens) for answer in answers)
    last = answers[-1]
    assert isinstance(last, auth_pb2.Tokens)
    assert isinstance(_refresh(world, last.refresh_token, "next"), auth_pb2.Tokens)


def test_once_a_successor_is_used_the_old_token_is_no_retry_any_more(world: World) -> None:
    """Even with its own request_id within the minute: two clients hold tokens of one sign-in."""
    old = _sign_in(world).refresh_token
    first = _refresh(world, old, "same")
    assert isinstance(first, auth_pb2.Tokens)
    assert isinstance(_refresh(world, first.refresh_token, "next"), auth_pb2.Tokens)

    again = _refresh(world, old, "same")

    assert isinstance(again, Answer)
    assert again.reason == Reason.REFRESH_TOKEN_REUSED
