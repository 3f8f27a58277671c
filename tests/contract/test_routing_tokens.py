"""A token that expires while a message waits its turn costs nothing of the reply."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from echomesh.routing.v1 import chat_pb2
from services.runtime.clock import FakeClock
from services.runtime.tokens import KeySet, TokenValidator
from tests.support.routing_mesh import FakeMemory, FakeModels, ask, model, routing_mesh, waits_for
from tests.support.tokens import jwks, token_for

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LIFE_S = 300


async def test_a_token_that_expires_in_routings_queue_costs_neither_memory_nor_the_reply(
    tmp_path: Path,
) -> None:
    """Store, recall, generate and the commit all come after its expiry; a new call is refused."""
    key, clock = Ed25519PrivateKey.generate(), FakeClock(NOW)
    path = tmp_path / "jwks.json"
    path.write_text(jwks(k1=key))
    validator = TokenValidator(KeySet(path, None, clock), clock)
    token = token_for(key, "alice", NOW + timedelta(seconds=LIFE_S))
    gate, memory = asyncio.Event(), FakeMemory()
    extractive = model("extractive", generative=False)
    models = FakeModels([extractive], {"extractive": waits_for(gate, "extractive", "a", "b")})
    async with routing_mesh(tmp_path, memory, models, validator, max_turns=1) as mesh:
        first = mesh.chat(ask(request_id="r1"), user=token)
        async for frame in first:
            if frame.WhichOneof("frame") == "text":
                break
        second = mesh.chat(ask(request_id="r2"), user=token)
        async for frame in second:
            if frame.progress.stage == chat_pb2.Progress.STAGE_QUEUED:
                break
        clock.advance(LIFE_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await mesh.chat(ask(request_id="r3"), user=token).read()
        gate.set()
        rest = [frame async for frame in second]
        whole = [frame async for frame in first]
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for frames in (rest, whole):
        final = frames[-1].final
        assert list(final.degraded) == []
        assert final.message_stored == final.reply_stored == chat_pb2.STORE_RESULT_STORED
    assert "".join(frame.text.text for frame in rest) == "ab"
    assert len(memory.recalls) == 2
