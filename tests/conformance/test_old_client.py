"""A client of an earlier release works with this mesh.

Its stubs are made here of the contracts that the release left behind (`protos/released/`), in a
descriptor pool of their own, so that nothing of today's contracts is known to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from echomesh.common.v1 import options_pb2
from tests.conformance.packages import ROOT
from tests.conformance.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")
RELEASES = sorted((ROOT / "protos/released").glob("*.binpb"))
_TIMEOUT_S = 30.0
# What a signed-in person calls; an administrator's calls might do something without any argument.
_CALLED = (options_pb2.ACCESS_PUBLIC, options_pb2.ACCESS_USER)


class OldClient:
    """Bare calls by the contracts of a release."""

    def __init__(self, image: Path, upstreams: Mapping[str, str]) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        self._services = [f"{f.package}.{s.name}" for f in files.file for s in f.service]
        self._channels = {n: grpc.aio.insecure_channel(a) for n, a in upstreams.items()}
        self._metadata: list[tuple[str, str]] = []

    def methods(self) -> list[MethodDescriptor]:
        """Every method of the release that its clients may call."""
        found = [m for s in self._services for m in self.pool.FindServiceByName(s).methods]
        return [m for m in found if self._policy(m).access in _CALLED]

    def _policy(self, method: MethodDescriptor) -> options_pb2.Policy:
        # The release's own option, read by today's extension: its number is part of the contract.
        options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
        return options.Extensions[options_pb2.policy]

    async def sign_in(self, api_key: str) -> None:
        """Turn a key into a token."""
        answer = await self.call("auth.v1.AuthService.ExchangeApiKey", api_key=api_key)
        self._metadata = [("authorization", f"Bearer {answer.tokens.access_token}")]

    async def call(self, name: str, **fields: Any) -> Any:
        """Call a method; a stream's messages come as a list."""
        service, _, method = f"echomesh.{name}".rpartition(".")
        return await self.invoke(
            self.pool.FindServiceByName(service).methods_by_name[method], fields
        )

    async def invoke(self, method: MethodDescriptor, fields: Mapping[str, Any]) -> Any:
        """Call a method with a request of these fields."""
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        answer = message_factory.GetMessageClass(method.output_type)
        channel = self._channels[method.containing_service.full_name.split(".")[1]]
        path = f"/{method.containing_service.full_name}/{method.name}"
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        call = kind(path, type(request).SerializeToString, answer.FromString)(
            request, metadata=self._metadata, timeout=_TIMEOUT_S
        )
        return [each async for each in call] if method.server_streaming else await call

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            await channel.close()


@pytest_asyncio.fixture(params=RELEASES, ids=lambda path: path.stem, loop_scope="session")
async def old(request: pytest.FixtureRequest, world: World) -> AsyncIterator[OldClient]:
    """A signed-in client of each release."""
    client = OldClient(request.param, world.upstreams)
    await client.sign_in(world.api_key)
    try:
        yield client
    finally:
        await client.close()


async def test_an_older_client_chats_remembers_and_lists(old: OldClient) -> None:
    """The main job from signing in to reading the reply again, by the release's own messages."""
    memory = {"request_id": "old-memory", "text": "My locker code is 4417."}
    kept = (await old.call("memory.v1.MemoryService.Remember", memory=memory)).memory
    hits = (await old.call("memory.v1.MemoryService.Recall", query="locker code")).hits
    assert kept.id in [hit.memory.id for hit in hits]
    frames = await old.call(
        "routing.v1.ChatService.Chat",
        request_id="old-chat",
        conversation_id="old",
        text="Hello!",
        tier=3,
    )
    text = "".join(f.text.text for f in frames if f.WhichOneof("frame") == "text")
    final = frames[-1].final
    listed = await old.call("memory.v1.ConversationService.ListMessages", conversation_id="old")
    said = [(m.id, m.text) for m in listed.messages]
    assert said == [(final.message_id, "Hello!"), (final.reply_id, text)]
    assert text


async def test_an_older_client_understands_a_refusal(old: OldClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as invalid:
        await old.call("memory.v1.MemoryService.Remember", memory={"request_id": "x", "text": ""})
    reason = _reason(invalid.value)
    values = old.pool.FindEnumTypeByName("echomesh.common.v1.ErrorReason").values_by_name
    assert f"ERROR_REASON_{reason}" in values


async def test_every_method_of_an_older_release_is_still_served(old: OldClient) -> None:
    """Asked with nothing, each answers or says what is missing: none is gone."""
    methods = old.methods()
    assert len(methods) >= 20
    gone = [m.full_name for m in methods if not await _is_served(old, m)]
    assert gone == []


async def _is_served(old: OldClient, method: MethodDescriptor) -> bool:
    try:
        await old.invoke(method, {})
    except grpc.aio.AioRpcError as error:
        # One that is not built yet says so by its reason; one that is not there has none.
        return bool(_reason(error))
    return True


def _reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return info.reason
    return ""
