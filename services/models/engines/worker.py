"""The worker process around one engine: ``python -m services.models.engines.worker JSON``.

It answers heartbeats while the model is loaded, so that its parent can tell loading from hanging.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, NoReturn

import grpc
import uvloop

from echomesh.worker.v1 import engine_pb2 as pb
from echomesh.worker.v1 import engine_pb2_grpc
from services.models.convert import generation_from, response_from
from services.models.engines.engine import CannotLoad, Engine, Report
from services.models.engines.settings import EngineModel
from services.runtime.errors import AppError, unavailable
from services.runtime.logs import get_logger
from services.runtime.status import DETAILS_KEY, to_status
from services.runtime.supervisor import socket_from_environment
from services.runtime.worker import Progress, run_worker


class EngineWorkerServicer(engine_pb2_grpc.EngineWorkerServiceServicer):
    """Serves one model to its parent, the models service."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._engine: Engine | None = None

    async def load(self, model: EngineModel, stack: AsyncExitStack) -> None:
        """Load the model; what it does meanwhile, and why it cannot, goes into the heartbeat."""
        try:
            engine = await load_engine(model, self._say)
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

    async def Describe(  # noqa: N802 - the name in the contract
        self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DescribeResponse:
        """Say what the model can do."""
        abilities = (self._engine or await _not_loaded(context)).abilities
        return pb.DescribeResponse(
            context_length=abilities.context_length,
            tools=abilities.tools,
            json_schema=abilities.json_schema,
        )

    async def Generate(  # noqa: N802 - the name in the contract
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Stream a reply."""
        engine = self._engine or await _not_loaded(context)
        try:
            with self._progress.request() as step:
                async with aclosing(
                    engine.generate(generation_from(request.generation), step)
                ) as events:
                    async for event in events:
                        yield pb.GenerateResponse(event=response_from(event))
        except AppError as error:
            await _abort(context, error)

    async def CountTokens(  # noqa: N802 - the name in the contract
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        """Count with the model's own tokenizer."""
        engine = self._engine or await _not_loaded(context)
        return pb.CountTokensResponse(tokens=await engine.count_tokens(request.texts))


async def _not_loaded(context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await _abort(context, unavailable("engine"))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: AppError) -> NoReturn:
    code, status = to_status(error, "")
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code, error.message, trailing_metadata=details)


async def load_engine(model: EngineModel, report: Report) -> Engine:
    """Load the engine that `model` names; each is imported only where it is used."""
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

        async def register(server: grpc.aio.Server, progress: Progress) -> None:
            progress.ready = False
            servicer = EngineWorkerServicer(progress)
            engine_pb2_grpc.add_EngineWorkerServiceServicer_to_server(servicer, server)
            loading = asyncio.create_task(servicer.load(model, stack))
            stack.callback(loading.cancel)

        await run_worker(register, socket)


def main() -> None:
    """Run the worker that the supervisor started."""
    model = EngineModel.model_validate_json(sys.argv[1])
    uvloop.run(serve(model, socket_from_environment()))


if __name__ == "__main__":
    main()
