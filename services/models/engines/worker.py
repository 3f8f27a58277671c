"""The worker process around one engine: ``python -m services.models.engines.worker JSON``.

It answers heartbeats while the model is loaded, so that its parent can tell loading from hanging.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import uvloop

from echomesh.worker.v1 import engine_pb2 as pb
from echomesh.worker.v1 import engine_pb2_grpc
from services.models.convert import generation_from, response_from
from services.models.engines.engine import (
    OTLP_VARIABLE,
    CannotLoad,
    Engine,
    Gone,
    Report,
    SleepLevel,
)
from services.models.engines.settings import ENGINE_MODEL, EngineModel, VllmModel
from services.runtime.errors import AppError, Reason, unavailable
from services.runtime.logs import get_logger
from services.runtime.status import DETAILS_KEY, to_status
from services.runtime.supervisor import socket_from_environment
from services.runtime.telemetry import export_spans
from services.runtime.tracing import following
from services.runtime.worker import Progress, run_worker

_LAST_WORDS_S = 0.3
"""Requests that failed with their engine get this long to say so."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class EngineWorkerServicer(engine_pb2_grpc.EngineWorkerServiceServicer):
    """Serves one model to its parent, the models service."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._engine: Engine | None = None

    async def load(self, model: EngineModel, stack: AsyncExitStack) -> None:
        """Load the model; what it does meanwhile, and why it cannot, goes into the heartbeat."""
        try:
            engine = await load_engine(model, self._say, _end)
        except CannotLoad as error:
            self._progress.failure = str(error)
        except Exception as error:
            get_logger().exception("engine_failed_to_load", model=model.id)
            self._progress.failure = f"{model.id} cannot be loaded: {type(error).__name__}"
        else:
            stack.push_async_callback(engine.close)
            self._engine, self._progress.ready = engine, True

    def _say(self, doing: str) -> None:
        self._progress.doing = doing

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise unavailable("engine")
        return self._engine

    async def Describe(  # noqa: N802 - the name in the contract
        self, request: pb.DescribeRequest, context: Context
    ) -> pb.DescribeResponse:
        """Say what the model can do, and how much it has to do."""
        async with _answering(context):
            engine = self._loaded()
        abilities, load = engine.abilities, engine.load()
        return pb.DescribeResponse(
            context_length=abilities.context_length,
            tools=abilities.tools,
            json_schema=abilities.json_schema,
            lora_adapters=abilities.lora_adapters,
            logprobs=abilities.logprobs,
            embeds=abilities.embeds,
            sleeps=abilities.sleeps,
            running_requests=load.running,
            waiting_requests=load.waiting,
            parameters=abilities.parameters,
        )

    async def Generate(  # noqa: N802 - the name in the contract
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Stream a reply."""
        async with _answering(context, "Generate"):
            generation = generation_from(request.generation)
            with self._progress.request() as step:
                async with aclosing(self._loaded().generate(generation, step)) as events:
                    async for event in events:
                        step()
                        yield pb.GenerateResponse(event=response_from(event))

    async def CountTokens(  # noqa: N802 - the name in the contract
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        """Count with the model's own tokenizer."""
        async with _answering(context):
            tokens = await self._loaded().count_tokens(request.texts)
        return pb.CountTokensResponse(tokens=tokens)

    async def Embed(  # noqa: N802 - the name in the contract
        self, request: pb.EmbedRequest, context: Context
    ) -> pb.EmbedResponse:
        """Make vectors of texts."""
        async with _answering(context, "Embed"):
            with self._progress.request() as step:
                vectors = await self._loaded().embed(request.texts, step)
        made = [
            pb.Embedding(vector=one.data, tokens=one.tokens, truncated=one.truncated)
            for one in vectors
        ]
        return pb.EmbedResponse(embeddings=made)

    async def Sleep(  # noqa: N802 - the name in the contract
        self, request: pb.SleepRequest, context: Context
    ) -> pb.SleepResponse:
        """Give the GPU's memory free."""
        async with _answering(context):
            await self._loaded().sleep(SleepLevel(request.level))
        return pb.SleepResponse()

    async def Wake(  # noqa: N802 - the name in the contract
        self, request: pb.WakeRequest, context: Context
    ) -> pb.WakeResponse:
        """Take it again."""
        async with _answering(context):
            await self._loaded().wake()
        return pb.WakeResponse()


def _end(why: str) -> None:
    """End this worker and all that it started; the parent starts another.

    There is nothing left to save, and a frozen engine would not end by itself.
    """
    get_logger().error("engine_gone", why=why)
    asyncio.get_running_loop().call_later(_LAST_WORDS_S, os.killpg, 0, signal.SIGKILL)


@asynccontextmanager
async def _answering(context: Context, method: str = "") -> AsyncIterator[None]:
    """Surround a call: an AppError becomes its status. A `method` is part of its caller's trace."""
    path = f"echomesh.worker.v1.EngineWorkerService/{method}"
    span = following(path, context.invocation_metadata()) if method else nullcontext()
    try:
        with span:
            yield
    except AppError as error:
        await _abort(context, error)
    except Exception as error:
        # Its kind alone: its words may be those of a prompt.
        get_logger().error("request_failed", kind=type(error).__name__)
        await _abort(context, AppError(Reason.MODEL_BAD_RESPONSE, "the engine failed"))


async def _abort(context: Context, error: AppError) -> None:
    code, status = to_status(error, "")
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code, error.message, trailing_metadata=details)


async def load_engine(model: EngineModel, report: Report, gone: Gone) -> Engine:
    """Load the engine that `model` names; each is imported only where it is used."""
    if isinstance(model, VllmModel):
        from services.models.engines.vllm import loading

        return await loading.load(model, report, gone, os.environ.get(OTLP_VARIABLE))
    try:
        from services.models.engines import llamacpp
    except ImportError as error:
        raise CannotLoad(
            "llama.cpp is not installed here: add the extra `llamacpp` of echomesh-services"
        ) from error
    return await llamacpp.load(model, report)


async def serve(model: EngineModel, socket: Path) -> None:
    """Load `model` and serve it on `socket` until the parent ends."""
    async with AsyncExitStack() as stack:
        if endpoint := os.environ.get(OTLP_VARIABLE):
            stack.callback(export_spans("engine", endpoint).shutdown)

        async def register(server: grpc.aio.Server, progress: Progress) -> None:
            progress.ready = False
            servicer = EngineWorkerServicer(progress)
            engine_pb2_grpc.add_EngineWorkerServiceServicer_to_server(servicer, server)
            loading = asyncio.create_task(servicer.load(model, stack))
            stack.callback(loading.cancel)

        await run_worker(register, socket)


def main() -> None:
    """Run the worker that the supervisor started."""
    model = ENGINE_MODEL.validate_json(sys.argv[1])
    uvloop.run(serve(model, socket_from_environment()))


if __name__ == "__main__":
    main()
