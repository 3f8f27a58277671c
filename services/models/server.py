"""Builds the models service: the only place that opens and closes things."""

from __future__ import annotations

from contextlib import AsyncExitStack

from echomesh.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from echomesh.models.v1 import models_pb2_grpc
from services.models.catalogue import Catalogue
from services.models.config import ModelsSettings, Upstream
from services.models.embedder import GrpcTokenEmbedder
from services.models.engines.backend import EngineBackend
from services.models.extractive.backend import MODEL, ExtractiveBackend
from services.models.observing import model_gauges
from services.models.openai.backend import OpenAIBackend
from services.models.openai.upstream import Server as UpstreamServer
from services.models.service import ModelServicer
from services.runtime.clock import SystemClock
from services.runtime.limits import Gate
from services.runtime.metrics import at_scrape
from services.runtime.process import socket_folder
from services.runtime.security import open_security
from services.runtime.server import Registration, Server, background

SERVICE = "echomesh.models.v1.ModelService"


async def build(settings: ModelsSettings, stack: AsyncExitStack) -> Server:
    """Opens everything onto `stack`; upstreams that are away are looked for in the background."""
    security = await open_security("models", settings, stack)
    embedder = GrpcTokenEmbedder(EmbeddingsServiceStub(security.channels.channel("embeddings")))
    gate = Gate(settings.extractive_concurrency, settings.extractive_queue, name=MODEL)
    upstreams = [await open_upstream(upstream, stack) for upstream in settings.keyed_upstreams()]
    engines = await open_engines(settings, stack)
    catalogue = Catalogue([*engines, *upstreams, ExtractiveBackend(embedder, gate)])
    stack.callback(at_scrape(lambda: model_gauges(catalogue.models)))
    return Server(
        "models",
        settings,
        mesh=[
            Registration(
                models_pb2_grpc.add_ModelServiceServicer_to_server,
                ModelServicer(catalogue),
                SERVICE,
            )
        ],
        validator=security.validator,
        verifier=security.verifier,
        dependencies=security.channels.dependencies(),
    )


async def open_engines(settings: ModelsSettings, stack: AsyncExitStack) -> list[EngineBackend]:
    """Starts a worker for each configured model; they load in the background."""
    if not settings.engines:
        return []
    sockets = socket_folder(settings.data_dir)
    engines = [
        EngineBackend(model, sockets, number, otlp_endpoint=settings.otlp_endpoint)
        for number, model in enumerate(settings.engines)
    ]
    for engine in engines:
        stack.push_async_callback(engine.close)
        await engine.start()
    return engines


async def open_upstream(upstream: Upstream, stack: AsyncExitStack) -> OpenAIBackend:
    """Opens the connection pool to one upstream and starts looking for it."""
    server = UpstreamServer(upstream)
    stack.push_async_callback(server.close)
    backend = OpenAIBackend(upstream, server, SystemClock())
    await background(stack, backend.keep_probing())
    return backend
