"""routing over real gRPC with scripted memory and models behind it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc

from echomesh.memory.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
)
from echomesh.models.v1 import models_pb2, models_pb2_grpc
from echomesh.routing.v1 import chat_pb2, chat_pb2_grpc
from services.routing.config import RoutingSettings
from services.routing.discovery import find_models
from services.routing.pipeline import Parts
from services.routing.server import make_parts, registrations
from services.routing.upstreams import GrpcMemory
from services.runtime.channel import ChannelFactory
from services.runtime.clock import SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity, current_identity
from services.runtime.server import Registration, Server
from services.runtime.settings import ServiceSettings
from services.runtime.tokens import AssertionSigner, AssertionVerifier
from services.runtime.trust import create_trust, load_private, load_public

SERVICES = ("routing", "memory", "models")


class Validator(Protocol):
    """Turns a token into whom it proves."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        """See TokenValidator."""
        ...


class Everyone:
    """A token validator that takes the token for the user's name."""

    async def validate(self, token: str, *, past_expiry_s: float = 0.0) -> Identity:
        return Identity("tenant-1", token, frozenset({"user"}))


@dataclass
class FakeMemory:
    """Memory in a dictionary, with knobs for what goes wrong. Serves both its services."""

    turns: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    hits: list[memory_pb2.RecallHit] = field(default_factory=list)
    recall_degraded: tuple[str, ...] = ()
    recall_reasons: tuple[str, ...] = ()
    recalls: list[memory_pb2.RecallRequest] = field(default_factory=list)
    begin_gate: asyncio.Event | None = None
    recall_gate: asyncio.Event | None = None
    begin_error: AppError | None = None
    completed: asyncio.Event = field(default_factory=asyncio.Event)

    async def BeginTurn(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.begin_gate is not None:
            await self.begin_gate.wait()
        if self.begin_error is not None:
            raise self.begin_error
        turn = self.turns.setdefault(_turn(request), self._new(request))
        if turn["body"] != request.body_sha256:
            raise AppError(Reason.REQUEST_ID_REUSED, "another body")
        if turn["reply"] is None:
            turn["epoch"] += 1
        return conversation_pb2.BeginTurnResponse(
            message=turn["message"], epoch=turn["epoch"], reply=turn["reply"]
        )

    def _new(self, request: Any) -> dict[str, Any]:
        message = conversation_pb2.Message(
            id=str(uuid.uuid4()),
            conversation_id=request.conversation_id,
            seq=2 * len(self.turns) + 1,
            role=conversation_pb2.MESSAGE_ROLE_USER,
            text=request.text,
            speaker=request.speaker,
        )
        return {"body": request.body_sha256, "message": message, "epoch": 0, "reply": None}

    async def CompleteTurn(self, request: Any, context: Any) -> Any:  # noqa: N802
        turn = self.turns[_turn(request)]
        if turn["epoch"] != request.epoch:
            raise AppError(Reason.TURN_SUPERSEDED, "newer", metadata={"epoch": "2"})
        turn["reply"] = conversation_pb2.Message(
            id=str(uuid.uuid4()),
            conversation_id=turn["message"].conversation_id,
            role=conversation_pb2.MESSAGE_ROLE_ASSISTANT,
            text=request.text,
            speaker=request.speaker,
            model=request.model,
            finish_reason=request.finish_reason,
            metadata=request.metadata,
        )
        turn["explanation"] = request.explanation
        self.completed.set()
        return conversation_pb2.CompleteTurnResponse(reply=turn["reply"])

    async def GetTurn(self, request: Any, context: Any) -> Any:  # noqa: N802
        for (user, request_id), turn in self.turns.items():
            reply_id = turn["reply"].id if turn["reply"] else ""
            ids = {request_id, turn["message"].id, reply_id} - {""}
            if user == current_identity().user_id and ids & {
                request.request_id,
                request.message_id,
            }:
                return conversation_pb2.GetTurnResponse(
                    request_id=request_id,
                    conversation_id=turn["message"].conversation_id,
                    message_id=turn["message"].id,
                    reply_id=reply_id,
                    explanation=turn.get("explanation", b""),
                )
        raise AppError(Reason.NOT_FOUND, "no such turn")

    async def GetMemory(self, request: Any, context: Any) -> Any:  # noqa: N802
        for hit in self.hits:
            if hit.memory.id == request.memory_id:
                return memory_pb2.GetMemoryResponse(memory=hit.memory)
        raise AppError(Reason.NOT_FOUND, "no such memory")

    async def ListMessages(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise AppError(Reason.NOT_FOUND, "no such conversation")

    async def Recall(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.recalls.append(request)
        if self.recall_gate is not None:
            await self.recall_gate.wait()
        return memory_pb2.RecallResponse(
            hits=self.hits, degraded=self.recall_degraded, degraded_reasons=self.recall_reasons
        )

    def reply(self, request_id: str, user: str = "alice") -> conversation_pb2.Message | None:
        """The stored reply of a user's turn, if any."""
        reply: conversation_pb2.Message | None = self.turns[user, request_id]["reply"]
        return reply


def _turn(request: Any) -> tuple[str, str]:
    """Whose turn this is, and its id: two people may choose the same one."""
    return current_identity().user_id, request.request_id


Script = Callable[[models_pb2.GenerateRequest], AsyncIterator[models_pb2.GenerateResponse]]


@dataclass
class FakeModels:
    """A models service whose models do as their scripts say."""

    models: list[models_pb2.Model]
    scripts: dict[str, Script]
    requests: list[models_pb2.GenerateRequest] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        return models_pb2.ListModelsResponse(models=self.models)

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        try:
            async for event in self.scripts[request.model](request):
                yield event
        finally:
            self.stopped.set()


def model(name: str, *, generative: bool = True, tools: bool = False) -> models_pb2.Model:
    """A model that is ready."""
    return models_pb2.Model(
        id=name, state=models_pb2.MODEL_STATE_READY, generative=generative, tools=tools
    )


def text(value: str) -> models_pb2.GenerateResponse:
    """A piece of text."""
    return models_pb2.GenerateResponse(text=value)


def finish(name: str, quoted: tuple[str, ...] = ()) -> models_pb2.GenerateResponse:
    """The end of a reply."""
    return models_pb2.GenerateResponse(
        finish=models_pb2.Finish(
            reason=models_pb2.FINISH_REASON_STOP,
            model=name,
            quoted_evidence_ids=quoted,
            confidence=0.75 if quoted else 0.0,
            usage=models_pb2.Usage(prompt_tokens=7, completion_tokens=3),
        )
    )


def says(name: str, *pieces: str, quoted: tuple[str, ...] = ()) -> Script:
    """A script that says `pieces` and ends well."""

    async def script(_: models_pb2.GenerateRequest) -> AsyncIterator[models_pb2.GenerateResponse]:
        for piece in pieces:
            yield text(piece)
        yield finish(name, quoted)

    return script


def breaks(*pieces: str, reason: Reason = Reason.MODEL_UNAVAILABLE) -> Script:
    """A script that says `pieces` and fails."""

    async def script(_: models_pb2.GenerateRequest) -> AsyncIterator[models_pb2.GenerateResponse]:
        for piece in pieces:
            yield text(piece)
        raise AppError(reason, "broken")

    return script


def hangs(*pieces: str) -> Script:
    """A script that says `pieces` and then nothing, for ever."""

    async def script(_: models_pb2.GenerateRequest) -> AsyncIterator[models_pb2.GenerateResponse]:
        for piece in pieces:
            yield text(piece)
        await asyncio.Event().wait()

    return script


def waits_for(gate: asyncio.Event, name: str, before: str, after: str) -> Script:
    """A script that says `before`, waits for `gate`, says `after` and ends well."""

    async def script(_: models_pb2.GenerateRequest) -> AsyncIterator[models_pb2.GenerateResponse]:
        yield text(before)
        await gate.wait()
        yield text(after)
        yield finish(name)

    return script


@dataclass
class RoutingMesh:
    """A running routing service and what stands behind it."""

    parts: Parts
    channel: grpc.aio.Channel
    stop: dict[str, Callable[[], Awaitable[None]]]

    def chat(
        self, request: chat_pb2.ChatRequest, *, user: str = "alice", timeout: float = 10.0
    ) -> Any:
        """Start a Chat call as `user`."""
        stub = chat_pb2_grpc.ChatServiceStub(self.channel)
        metadata = (("authorization", f"Bearer {user}"),)
        return stub.Chat(request, metadata=metadata, timeout=timeout)


def ask(message: str = "Where do I live?", request_id: str = "r1", **changes: Any) -> Any:
    """A Chat request."""
    return chat_pb2.ChatRequest(
        request_id=request_id, conversation_id="c1", text=message, **changes
    )


@asynccontextmanager
async def routing_mesh(
    folder: Path,
    memory: FakeMemory,
    models: FakeModels,
    validator: Validator | None = None,
    *,
    more_models: Sequence[FakeModels] = (),
    **settings_of: Any,
) -> AsyncIterator[RoutingMesh]:
    """Run routing, memory and models in this process, on real listeners.

    All check tokens by `validator`; without one a token is the user's name. With `more_models` each
    of the models services is an instance with models of its own, `models0`, `models1` and so on.
    """
    validator = validator or Everyone()
    create_trust(folder, SERVICES)
    async with AsyncExitStack() as stack:
        served = {
            "memory": await _serve(folder, "memory", _memory_services(memory), validator),
            "models": await _serve(folder, "models", [_models_service(models)], validator),
        }
        for number, more in enumerate((models, *more_models) if more_models else ()):
            service = [_models_service(more)]
            served[f"models{number}"] = await _serve(folder, "models", service, validator)
        addresses = [s.mesh_bound for name, s in served.items() if name[6:].isdigit()]
        stops = {name: _stopper(server) for name, server in served.items()}
        for stop in stops.values():
            stack.push_async_callback(stop)
        settings = RoutingSettings(
            data_dir=folder,
            trust_dir=folder,
            memory_target=f"ipv4:{served['memory'].mesh_bound}",
            models_target=f"ipv4:{served['models'].mesh_bound}",
            models_instances=",".join(addresses),
            **settings_of,
        )
        parts = await _parts(settings, stack)
        routing = await _serve(folder, "routing", registrations(parts, settings), validator)
        stack.push_async_callback(_stopper(routing))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(routing.public_bound))
        yield RoutingMesh(parts, channel, stops)


async def _parts(settings: RoutingSettings, stack: AsyncExitStack) -> Parts:
    """Routing's own parts, with its channels to the fakes."""
    private = load_private(settings.trust_dir, "routing")
    channels = ChannelFactory(settings, AssertionSigner("routing", private, SystemClock()))
    stack.push_async_callback(channels.close)
    memory = GrpcMemory(channels.channel("memory"))
    models, _ = await find_models(settings, channels, stack)
    return make_parts(settings, memory, models, stack, SystemClock())


def _memory_services(memory: FakeMemory) -> list[Registration]:
    return [
        Registration(
            conversation_pb2_grpc.add_ConversationServiceServicer_to_server,
            _Methods(memory, conversation_pb2_grpc.ConversationServiceServicer),
            "echomesh.memory.v1.ConversationService",
        ),
        Registration(
            memory_pb2_grpc.add_MemoryServiceServicer_to_server,
            _Methods(memory, memory_pb2_grpc.MemoryServiceServicer),
            "echomesh.memory.v1.MemoryService",
        ),
    ]


def _models_service(models: FakeModels) -> Registration:
    return Registration(
        models_pb2_grpc.add_ModelServiceServicer_to_server,
        _Methods(models, models_pb2_grpc.ModelServiceServicer),
        "echomesh.models.v1.ModelService",
    )


class _Methods:
    """The methods of a fake, and the generated refusals for those it lacks."""

    def __init__(self, fake: object, base: type) -> None:
        self._fake = fake
        self._base = base()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name, None) or getattr(self._base, name)


async def _serve(
    folder: Path, name: str, services: list[Registration], validator: Validator
) -> Server:
    settings = ServiceSettings(
        public_address="127.0.0.1:0", mesh_address="127.0.0.1:0", data_dir=folder, trust_dir=folder
    )
    server = Server(
        name,
        settings,
        public=services,
        mesh=services,
        validator=validator,  # type: ignore[arg-type]
        verifier=AssertionVerifier(name, load_public(folder), SystemClock()),
    )
    await server.start()
    return server


def _stopper(server: Server) -> Callable[[], Awaitable[None]]:
    stopped = False

    async def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            await server.stop(grace_s=0)

    return stop
