"""routing's composition root: the only place that builds and closes its parts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version

from echomesh.routing.v1 import chat_pb2_grpc, routing_pb2_grpc
from services.routing.catalog import Catalog
from services.routing.config import RoutingSettings
from services.routing.discovery import find_models
from services.routing.explain import Explanations
from services.routing.observing import breaker_gauges
from services.routing.persona import PersonaError, load_personas
from services.routing.pipeline import Parts
from services.routing.ports import MemoryPort, ModelsPort
from services.routing.remembering import STORE_S
from services.routing.service import ChatServicer, MeshServicer, RoutingServicer
from services.routing.streams import Background, TurnTable
from services.routing.targets import TargetBook
from services.routing.upstreams import GrpcMemory
from services.runtime.adaptive import AdaptiveGate
from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.limits import Gate
from services.runtime.metrics import at_scrape
from services.runtime.security import open_security
from services.runtime.server import Registration, Server

NAME = "routing"
# How many times the least number of starting turns a process begins with.
FIRST_STARTING = 2


def make_parts(
    settings: RoutingSettings,
    memory: MemoryPort,
    models: ModelsPort,
    stack: AsyncExitStack,
    clock: Clock,
) -> Parts:
    """Return what turns share; at the end of `stack`, writes under way get `STORE_S` to end."""
    background = Background()
    stack.push_async_callback(background.close, STORE_S)
    try:
        personas = load_personas(settings.personas_dir)
    except (OSError, PersonaError) as error:
        raise AppError(Reason.INVALID_REQUEST, f"routing: {error}") from error
    return Parts(
        memory=memory,
        models=models,
        catalog=Catalog(models, clock, background),
        personas=personas,
        book=TargetBook(),
        table=TurnTable(background, clock),
        explanations=Explanations(memory, clock),
        background=background,
        gate=Gate(settings.max_turns, settings.max_queued_turns, name="turns"),
        max_turns=settings.max_turns,
        starting=_starting(settings, clock),
        clock=clock,
    )


def _starting(settings: RoutingSettings, clock: Clock) -> AdaptiveGate:
    """Return the gate of turns that store and recall, which begins near its lower bound."""
    most = settings.max_turns
    least = min(settings.min_starting_turns, most)
    first = min(FIRST_STARTING * least, most)
    return AdaptiveGate(least=least, first=first, most=most, name="turns", clock=clock)


def registrations(parts: Parts, settings: RoutingSettings) -> list[Registration]:
    """Return routing's gRPC services."""
    return [
        Registration(
            chat_pb2_grpc.add_ChatServiceServicer_to_server,
            ChatServicer(parts),
            "echomesh.routing.v1.ChatService",
        ),
        Registration(
            routing_pb2_grpc.add_RoutingServiceServicer_to_server,
            RoutingServicer(parts.explanations, settings.traces_url),
            "echomesh.routing.v1.RoutingService",
        ),
        Registration(
            routing_pb2_grpc.add_MeshServiceServicer_to_server,
            MeshServicer(settings.endpoints(), _version()),
            "echomesh.routing.v1.MeshService",
        ),
    ]


async def build(settings: RoutingSettings, stack: AsyncExitStack) -> Server:
    """Build the service; what it opens is closed by `stack`."""
    security = await open_security(NAME, settings, stack)
    memory = GrpcMemory(security.channels.channel("memory"))
    models, discovered = await find_models(settings, security.channels, stack)
    clock = SystemClock()
    parts = make_parts(settings, memory, models, stack, clock)
    stack.callback(at_scrape(lambda: breaker_gauges(parts.book, clock.monotonic())))
    services = registrations(parts, settings)
    return Server(
        NAME,
        settings,
        public=services,
        mesh=services,
        validator=security.validator,
        verifier=security.verifier,
        dependencies={**security.channels.dependencies(), **discovered},
    )


def _version() -> str:
    try:
        return version("echomesh-services")
    except PackageNotFoundError:
        return "unknown"
