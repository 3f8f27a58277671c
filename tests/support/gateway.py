"""The gateway over real HTTP, with real routing behind it and scripted services behind that."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from echomesh.auth.v1 import auth_pb2
from echomesh.embeddings.v1 import embeddings_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc
from services.gateway.app import make_app
from services.gateway.config import GatewaySettings
from services.gateway.listener import HttpListener
from services.gateway.mesh import Mesh
from services.gateway.sessions import Sessions
from services.runtime.channel import MeshChannel
from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, current_identity
from services.runtime.validation import checked
from tests.support.routing_mesh import FakeMemory, FakeModels, model, routing_mesh, says

DIMENSIONS = 4
APP_KEY = "key-app"


class Roles:
    """A token validator: the token is the user's name, and `app` has that role too."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        roles = {"user", "app"} if token == "app" else {"user"}
        return Identity("tenant-1", token, frozenset(roles))


@dataclass
class FakeAuth:
    """An AuthService stub: the key of NAME is key-NAME."""

    exchanges: list[str] = field(default_factory=list)
    error: AppError | None = None

    async def ExchangeApiKey(self, request: Any) -> Any:  # noqa: N802
        self.exchanges.append(request.api_key)
        if self.error is not None:
            raise self.error
        checked(request)
        if not request.api_key.startswith("key-"):
            raise AppError(Reason.CREDENTIALS_INVALID, "the credentials are not valid")
        return auth_pb2.ExchangeApiKeyResponse(tokens=_tokens(request.api_key[4:]))

    async def ExchangeToken(self, request: Any) -> Any:  # noqa: N802
        self.exchanges.append(request.external_user_id)
        if "app" not in current_identity().roles:
            raise AppError(Reason.PERMISSION_DENIED, "this call needs the role app")
        return auth_pb2.ExchangeTokenResponse(tokens=_tokens(f"end-{request.external_user_id}"))


def _tokens(name: str) -> auth_pb2.Tokens:
    return auth_pb2.Tokens(access_token=name)


@dataclass
class FakeEmbeddings:
    """An EmbeddingsService stub whose vectors are the lengths of the texts."""

    calls: list[int] = field(default_factory=list)

    async def GetModel(self, request: Any) -> Any:  # noqa: N802
        return embeddings_pb2.GetModelResponse(model="tiny-embed@1", dimensions=DIMENSIONS)

    async def Embed(self, request: Any) -> Any:  # noqa: N802
        self.calls.append(len(request.texts))
        vectors = (struct.pack("<4f", len(text), 0, 0, 1) for text in request.texts)
        embeddings = [embeddings_pb2.Embedding(vector=each, tokens=2) for each in vectors]
        return embeddings_pb2.EmbedResponse(embeddings=embeddings, model="tiny-embed@1")


class Direct:
    """A stub that calls a servicer's methods without any wire."""

    def __init__(self, servicer: Any) -> None:
        self._servicer = servicer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._servicer, name)
        return lambda request: method(request, None)


class Recorded:
    """A ChatService stub that keeps what it is asked for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.requests: list[chat_pb2.ChatRequest] = []
        self.users: list[str] = []

    def Chat(self, request: chat_pb2.ChatRequest) -> Any:  # noqa: N802
        self.requests.append(request)
        self.users.append(current_identity().user_id)
        return self._inner.Chat(request)


class ScriptedChat:
    """A ChatService stub whose calls are scripts: lists of frames and errors, one for each call.

    The last script stays. With `hold` a call stays open after its last frame until it is closed.
    """

    def __init__(self, *scripts: Sequence[Any], hold: bool = False) -> None:
        self._scripts = list(scripts)
        self._hold = hold
        self.requests: list[chat_pb2.ChatRequest] = []
        self.closed = asyncio.Event()

    def Chat(self, request: chat_pb2.ChatRequest) -> Any:  # noqa: N802
        self.requests.append(request)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        return self._frames(script)

    async def _frames(self, script: Sequence[Any]) -> AsyncIterator[Any]:
        try:
            for frame in script:
                if isinstance(frame, AppError):
                    raise frame
                yield frame
            if self._hold:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


@dataclass
class GatewayWorld:
    """A running gateway and what it talks to."""

    address: str
    memory: FakeMemory
    models: FakeModels
    auth: FakeAuth
    embeddings: FakeEmbeddings
    chat: Recorded | ScriptedChat

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://{self.address}"

    def client(self, key: str = "key-alice", **options: Any) -> AsyncOpenAI:
        """OpenAI's own client, which shows the first error it gets."""
        options = {"max_retries": 0, "timeout": 60.0, **options}
        return AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", **options)

    def http(self, key: str | None = "key-alice") -> httpx.AsyncClient:
        """A plain HTTP client."""
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60.0)


def language_models(script: Any = None) -> FakeModels:
    """One model that can do everything and says "Hello there", or what `script` has it do."""
    able = model("tiny", tools=True)
    able.json_schema = True
    return FakeModels([able], {"tiny": script or says("tiny", "Hello", " there")})


@asynccontextmanager
async def gateway_world(
    folder: Path,
    *,
    models: FakeModels | None = None,
    chat: ScriptedChat | None = None,
    clock: Clock | None = None,
    records: Any = None,
    **settings_of: Any,
) -> AsyncIterator[GatewayWorld]:
    """Run a gateway; with `chat` there is nothing but that script behind it.

    `records` stands for what is stored: conversations, memories and explanations, as stubs.
    """
    memory, auth, embeddings = FakeMemory(), FakeAuth(), FakeEmbeddings()
    models = models or language_models()
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        recorded: Recorded | ScriptedChat
        if chat is None:
            running = await stack.enter_async_context(routing_mesh(folder, memory, models))
            inner = chat_pb2_grpc.ChatServiceStub(MeshChannel(running.channel, "routing", None))
            recorded = Recorded(inner)
        else:
            recorded = chat
        address = settings_of.pop("public_address", "127.0.0.1:0")
        settings = GatewaySettings(data_dir=folder, public_address=address, **settings_of)
        mesh = Mesh(
            settings=settings,
            sessions=Sessions(auth, Roles(), clock),
            clock=clock,
            chat=recorded,
            routing=records,
            conversations=records or Direct(memory),
            memories=records or Direct(memory),
            models=Direct(models),
            embeddings=embeddings,
        )
        listener = HttpListener(make_app(mesh), settings)
        address = await listener.start()
        stack.push_async_callback(listener.stop)
        yield GatewayWorld(address, memory, models, auth, embeddings, recorded)


def text_frame(text: str) -> chat_pb2.ChatResponse:
    """A piece of text."""
    return chat_pb2.ChatResponse(text=chat_pb2.TextDelta(text=text))


def restart_frame() -> chat_pb2.ChatResponse:
    """All text so far is void."""
    return chat_pb2.ChatResponse(restart=chat_pb2.Restart(reason="rescued"))


def call_frame(name: str, arguments: str = "{}") -> chat_pb2.ChatResponse:
    """A call of a tool."""
    call = models_pb2.ToolCall(id=f"call-{name}", name=name, arguments_json=arguments)
    return chat_pb2.ChatResponse(tool_call=call)


def final_frame(**more: Any) -> chat_pb2.ChatResponse:
    """A good end."""
    final = chat_pb2.Final(model="tiny", finish_reason=1, **more)
    final.usage.prompt_tokens, final.usage.completion_tokens = 7, 3
    return chat_pb2.ChatResponse(final=final)
