"""Chats without the SDK's retries, to see what the mesh itself answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from echomesh._errors import from_rpc_error
from echomesh.auth.v1 import auth_pb2, auth_pb2_grpc
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc
from services.runtime.settings import local_address
from tests.bench.people import Heard
from tests.support.mesh import RunningMesh

_SIGN_IN_S = 30.0


class RawChat:
    """Chat over one channel with tokens got beforehand."""

    def __init__(self, channel: grpc.aio.Channel, tokens: dict[str, str]) -> None:
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)
        self._tokens = tokens

    async def once(self, user: str, text: str, timeout_s: float) -> Heard:
        """Send one message as the external user `user`; a refusal is told with its RetryInfo."""
        request = chat_pb2.ChatRequest(
            request_id=str(uuid.uuid4()),
            conversation_id="talk",
            text=text,
            tier=chat_pb2.TIER_INSTANT,
        )
        began = time.monotonic()
        first_frame = first_text = 0.0
        degraded: tuple[str, ...] = ()
        metadata = (("authorization", f"Bearer {self._tokens[user]}"),)
        call = self._stub.Chat(request, timeout=timeout_s, metadata=metadata)
        try:
            async for frame in call:
                passed = time.monotonic() - began
                first_frame = first_frame or passed
                kind = frame.WhichOneof("frame")
                if kind == "text":
                    first_text = first_text or passed
                elif kind == "final":
                    degraded = tuple(frame.final.degraded)
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error)
            reason = known.reason or error.code().name
            return Heard(
                began,
                total_s=time.monotonic() - began,
                error=reason,
                retry_after_s=known.retry_after,
            )
        return Heard(began, first_frame, first_text, time.monotonic() - began, degraded)


@asynccontextmanager
async def raw_chat(mesh: RunningMesh, users: list[str]) -> AsyncIterator[RawChat]:
    """Sign these external users in and open the channel to routing."""
    auth_address = local_address("auth", "public", mesh.port_base)
    async with grpc.aio.insecure_channel(auth_address) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        key = auth_pb2.ExchangeApiKeyRequest(api_key=mesh.credentials.api_key)
        mine = (await stub.ExchangeApiKey(key, timeout=_SIGN_IN_S)).tokens.access_token
        metadata = (("authorization", f"Bearer {mine}"),)
        tokens = {}
        for user in users:
            request = auth_pb2.ExchangeTokenRequest(external_user_id=user)
            answer = await stub.ExchangeToken(request, metadata=metadata, timeout=_SIGN_IN_S)
            tokens[user] = answer.tokens.access_token
    async with grpc.aio.insecure_channel(mesh.file.address) as channel:
        yield RawChat(channel, tokens)
