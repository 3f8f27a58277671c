"""Builds the embeddings service: the only place that opens and closes things."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from echomesh.embeddings.v1 import embeddings_pb2_grpc as pb_grpc
from echomesh.models.v1.models_pb2_grpc import ModelServiceStub
from services.embeddings.dense import DenseByModel
from services.embeddings.encoder import OnnxEncoder
from services.embeddings.engine import Engine
from services.embeddings.metrics import EngineMetrics
from services.embeddings.model_folder import ensure_built
from services.embeddings.service import EmbeddingsServicer
from services.embeddings.source import ModelError
from services.runtime.clock import SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger
from services.runtime.security import open_security
from services.runtime.server import Registration, Server

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from services.embeddings.config import EmbeddingsSettings
    from services.runtime.channel import ChannelFactory

SERVICE = "echomesh.embeddings.v1.EmbeddingsService"


async def build(settings: EmbeddingsSettings, stack: AsyncExitStack) -> Server:
    """Open everything onto `stack`; the first start builds the model, which takes seconds.

    Raises:
        AppError: the model cannot be had; its message is one line for the operator.

    """
    security = await open_security("embeddings", settings, stack)
    engine = Engine(await open_encoder(settings), settings.limits, SystemClock(), EngineMetrics())
    engine.start()
    stack.push_async_callback(engine.close)
    get_logger().info("model_ready", model=engine.info.version, threads=settings.threads)
    servicer = EmbeddingsServicer(_with_dense_model(engine, settings, security.channels))
    return Server(
        "embeddings",
        settings,
        mesh=[Registration(pb_grpc.add_EmbeddingsServiceServicer_to_server, servicer, SERVICE)],
        validator=security.validator,
        verifier=security.verifier,
        dependencies=security.channels.dependencies(),
    )


def _with_dense_model(
    engine: Engine, settings: EmbeddingsSettings, channels: ChannelFactory
) -> Engine | DenseByModel:
    if not settings.dense_model:
        return engine
    stub = ModelServiceStub(channels.channel("models"))
    return DenseByModel(engine, stub, settings.dense_model, settings.dense_dimensions)


async def open_encoder(settings: EmbeddingsSettings) -> OnnxEncoder:
    """The encoder of the model in the settings; reads and builds in a thread."""
    try:
        folder = settings.built_model
        if folder is None or settings.model_dir is not None:
            folder = await asyncio.to_thread(ensure_built, settings.model_dir, settings.models_dir)
        return await asyncio.to_thread(OnnxEncoder, folder)
    except (ModelError, OSError) as error:
        raise AppError(Reason.INTERNAL, f"embeddings: {error}") from error
