"""Fault 17: a signing key is published, signs and retires under load, and no good token is refused.

An access token lives 5 s here and a key is published 30 s before it signs, the least that auth
allows. A key retires minutes later, when no token of it can be under way any more; that wait is
shortened in auth's own table once no token of the old key is in use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import grpc
import jwt
import pytest
import pytest_asyncio

from echomesh.auth.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from services.runtime.errors import Reason
from tests.faults.attack.answers import Answer
from tests.faults.attack.forged import make_forger
from tests.faults.attack.rpcs import Caller, Rpc, all_rpcs
from tests.support.mesh import RunningMesh, running_mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

TOKEN_S = 5
PUBLISH_AHEAD_S = 30
PARALLEL = 6
WAIT_S = 60.0
USED = {"WhoAmI", "ListConversations", "Explain"}
RPCS = [rpc for rpc in all_rpcs() if rpc.listener == "public" and rpc.method.name in USED]
# Explain is asked about nothing: what it says of that comes after the token was taken.
_WELCOME = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@dataclass
class Load:
    """Calls with fresh, renewed and nearly expired tokens, with no retry to hide a refusal."""

    mesh: RunningMesh
    caller: Caller
    calls: int = 0
    refused: list[str] = field(default_factory=list)
    key_ids: set[str] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Call until it is enough."""
        await asyncio.gather(*(self._worker() for _ in range(PARALLEL)))

    async def _worker(self) -> None:
        tokens = await self.tokens()
        while not self.ended.is_set():
            if tokens.access_expires_at.seconds - time.time() < 1.0:
                tokens = await self._renewed(tokens)
            for rpc in RPCS:
                await self._use(rpc, tokens.access_token)

    async def _use(self, rpc: Rpc, token: str) -> None:
        answer = await self.caller.call(rpc, b"", token)
        self.calls += 1
        if answer.code not in _WELCOME:
            self.refused.append(f"{rpc}: {answer.reason} {answer.message}")

    async def tokens(self) -> auth_pb2.Tokens:
        """Sign in."""
        request = auth_pb2.ExchangeApiKeyRequest(api_key=self.mesh.credentials.api_key)
        answer = await self._auth().ExchangeApiKey(request, timeout=10)
        return self._noted(answer.tokens)

    async def _renewed(self, old: auth_pb2.Tokens) -> auth_pb2.Tokens:
        request = auth_pb2.RefreshRequest(refresh_token=old.refresh_token, request_id="next")
        answer = await self._auth().Refresh(request, timeout=10)
        return self._noted(answer.tokens)

    def _auth(self) -> auth_pb2_grpc.AuthServiceStub:
        return auth_pb2_grpc.AuthServiceStub(self.caller.channel("auth", "public"))

    def _noted(self, tokens: auth_pb2.Tokens) -> auth_pb2.Tokens:
        self.key_ids.add(jwt.get_unverified_header(tokens.access_token)["kid"])
        return tokens


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def load(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Load]:
    """A mesh with short-lived tokens, and its load, not yet running."""
    folder: Path = tmp_path_factory.mktemp("rotation") / "data"
    env = {
        "ECHOMESH_AUTH_ACCESS_TOKEN_TTL_S": str(TOKEN_S),
        "ECHOMESH_AUTH_KEY_PUBLISH_AHEAD_S": str(PUBLISH_AHEAD_S),
    }
    running = running_mesh(folder, env=env)
    mesh = await asyncio.to_thread(running.__enter__)
    caller = Caller(mesh)
    try:
        yield Load(mesh, caller)
    finally:
        await caller.close()
        await asyncio.to_thread(running.__exit__, None, None, None)


async def _rotate(load: Load) -> str:
    token = (await load.tokens()).access_token
    stub = admin_pb2_grpc.AdminServiceStub(load.caller.channel("auth", "public"))
    answer = await stub.RotateSigningKey(
        admin_pb2.RotateSigningKeyRequest(request_id="rotate"),
        metadata=[("authorization", f"Bearer {token}")],
        timeout=10,
    )
    return str(answer.key_id)


async def _retire(load: Load, key_id: str) -> None:
    """Let the key's time be over now, instead of in some minutes."""
    environment = load.mesh.service("auth").environ()
    connection = await asyncpg.connect(environment["ECHOMESH_AUTH_DATABASE_URL"])
    try:
        async with connection.transaction():
            await connection.execute(
                "update auth.signing_keys set retires_at = greatest(signs_from, now()) "
                "+ interval '1 microsecond' where id = $1",
                key_id,
            )
    finally:
        await connection.close()


async def _until_refused(load: Load, rpc: Rpc, token: str) -> Answer:
    """Ask with a token of the retired key until the service has learned of it."""
    async with asyncio.timeout(WAIT_S):
        while (answer := await load.caller.call(rpc, b"", token)).code in _WELCOME:
            await asyncio.sleep(0.5)
    return answer


async def test_a_key_changes_under_load_and_no_good_token_is_refused(load: Load) -> None:
    """From publishing the new key until the old one is gone; whoever stole that one is out then."""
    first = await load.tokens()
    forger = await make_forger(load.mesh, first.access_token)
    running = asyncio.create_task(load.run())
    new = await _rotate(load)
    await _under(running, load, lambda: new in load.key_ids)
    gone = time.time() + 2 * TOKEN_S
    await _under(running, load, lambda: time.time() > gone)

    # One that lasts for years, taken everywhere before the key is gone.
    stolen = [forger.signed({**forger.claims, "exp": time.time() + life}) for life in (600, 10**9)]
    for rpc in RPCS:
        assert (await load.caller.call(rpc, b"", stolen[1])).code in _WELCOME
    await _retire(load, forger.kid)
    answers = await asyncio.gather(
        *(_until_refused(load, rpc, token) for rpc in RPCS for token in stolen)
    )

    load.ended.set()
    await running
    assert {answer.reason for answer in answers} == {Reason.TOKEN_INVALID}
    assert load.refused == []
    assert load.key_ids == {forger.kid, new}
    assert load.calls > 1_000


async def _under(running: asyncio.Task[None], load: Load, condition: Callable[[], bool]) -> None:
    """Wait for a condition; a load that broke off is an error at once."""
    async with asyncio.timeout(PUBLISH_AHEAD_S + WAIT_S):
        while not condition():
            if running.done():
                await running
            assert load.refused == []
            await asyncio.sleep(0.1)
