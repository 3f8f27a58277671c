"""The worker around an engine: what engines differ in, told alike. The engine is a double."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from echomesh.models.v1 import models_pb2
from echomesh.worker.v1 import engine_pb2 as pb
from echomesh.worker.v1 import engine_pb2_grpc
from services.models.domain import Event, Finish, FinishReason, Generation, Text, Usage, Vector
from services.models.engines import worker
from services.models.engines.engine import (
    Abilities,
    CannotLoad,
    Engine,
    Load,
    SleepLevel,
    Step,
)
from services.models.engines.settings import LlamaCppModel, VllmModel
from services.models.failures import away
from services.runtime.errors import Reason
from services.runtime.process import private_folder
from services.runtime.status import from_rpc_error
from services.runtime.worker import Progress

MODEL = VllmModel(model="/models/tiny")
GENERATION = models_pb2.GenerateRequest(
    messages=[models_pb2.ChatMessage(role=models_pb2.CHAT_ROLE_USER, content="Hello.")]
)


class PlainEngine(Engine):
    """An engine that can do no more than it must."""

    def __init__(self) -> None:
        self.id = "vllm/tiny"
        self.abilities = Abilities(1024, tools=False, json_schema=True)

    async def generate(self, request: Generation, step: Step) -> AsyncGenerator[Event, None]:
        yield Text("Hello.")
        yield Finish(FinishReason.STOP, Usage(1, 1), self.id)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    async def close(self) -> None:
        pass


class AbleEngine(PlainEngine):
    """An engine that can do all."""

    def __init__(self) -> None:
        super().__init__()
        self.abilities = Abilities(
            1024, True, True, lora_adapters=("terse",), logprobs=True, embeds=True, sleeps=True
        )
        self.level: SleepLevel | None = None

    def load(self) -> Load:
        return Load(running=3, waiting=2)

    async def embed(self, texts: Sequence[str], step: Step) -> list[Vector]:
        return [Vector(b"\0\0\x80\x3f", len(text)) for text in texts]

    async def sleep(self, level: SleepLevel) -> None:
        self.level = level

    async def wake(self) -> None:
        if self.level is None:
            raise away(self.id, "was awake")
        self.level = None


class Served:
    """A servicer on a unix socket, and a stub to it."""

    def __init__(self, stub: engine_pb2_grpc.EngineWorkerServiceAsyncStub) -> None:
        self.stub = stub
        self.progress = Progress()
        self.servicer = worker.EngineWorkerServicer(self.progress)

    async def load(self, engine: Engine | Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the servicer load this engine, or fail with this error."""

        async def loaded(*_: object) -> Engine:
            if isinstance(engine, Exception):
                raise engine
            return engine

        monkeypatch.setattr(worker, "load_engine", loaded)
        self.progress.ready = False
        async with AsyncExitStack() as stack:
            await self.servicer.load(MODEL, stack)
            stack.pop_all()

    async def refusal(self, call: object) -> Reason:
        """The reason for which a call is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call  # type: ignore[misc]
        return from_rpc_error(raised.value, "engine").reason


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A servicer without an engine yet."""
    socket = private_folder(tmp_path / "s") / "engine.sock"
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        made = Served(engine_pb2_grpc.EngineWorkerServiceStub(channel))
        server = grpc.aio.server()
        engine_pb2_grpc.add_EngineWorkerServiceServicer_to_server(made.servicer, server)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        yield made
        await server.stop(0)


async def test_before_the_model_is_loaded_every_call_is_refused(served: Served) -> None:
    reason = await served.refusal(served.stub.Describe(pb.DescribeRequest()))
    assert reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_why_a_model_cannot_be_loaded_is_told_by_the_heartbeat(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.load(CannotLoad("/models/tiny has no config.json"), monkeypatch)
    assert served.progress.failure == "/models/tiny has no config.json"
    await served.load(RuntimeError("no text of Python's"), monkeypatch)
    assert served.progress.failure == "vllm/tiny cannot be loaded: RuntimeError"
    assert not served.progress.ready


async def test_what_an_engine_lacks_is_refused_as_such(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.load(PlainEngine(), monkeypatch)
    sleep = pb.SleepRequest(level=pb.SLEEP_LEVEL_KEEP_WEIGHTS)
    calls = (
        served.stub.Embed(pb.EmbedRequest(texts=["a"])),
        served.stub.Sleep(sleep),
        served.stub.Wake(pb.WakeRequest()),
    )
    for call in calls:
        assert await served.refusal(call) is Reason.MODEL_LACKS_ABILITY
    messages = [m async for m in served.stub.Generate(pb.GenerateRequest(generation=GENERATION))]
    assert [m.event.WhichOneof("event") for m in messages] == ["text", "finish"]


class BrokenEngine(PlainEngine):
    """An engine with a defect."""

    async def generate(self, request: Generation, step: Step) -> AsyncGenerator[Event, None]:
        raise KeyError("a word of the prompt")
        yield

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        raise ValueError("a word of the prompt")


async def test_a_defect_of_an_engine_is_its_bad_answer_and_not_its_end(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same request fails again; and no word of it gets into a log."""
    await served.load(BrokenEngine(), monkeypatch)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in served.stub.Generate(pb.GenerateRequest(generation=GENERATION)):
            pass
    assert from_rpc_error(raised.value, "engine").reason is Reason.MODEL_BAD_RESPONSE
    counting = served.stub.CountTokens(pb.CountTokensRequest(texts=["a"]))
    assert await served.refusal(counting) is Reason.MODEL_BAD_RESPONSE
    assert "a word of the prompt" not in "".join(capfd.readouterr())


async def test_an_engine_tells_what_it_can_and_what_it_has_to_do(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.load(AbleEngine(), monkeypatch)
    assert await served.stub.Describe(pb.DescribeRequest()) == pb.DescribeResponse(
        context_length=1024,
        tools=True,
        json_schema=True,
        lora_adapters=["terse"],
        logprobs=True,
        embeds=True,
        sleeps=True,
        running_requests=3,
        waiting_requests=2,
    )
    made = await served.stub.Embed(pb.EmbedRequest(texts=["abc"]))
    assert [(e.vector, e.tokens) for e in made.embeddings] == [(b"\0\0\x80\x3f", 3)]


async def test_a_model_is_put_to_sleep_and_woken(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AbleEngine()
    await served.load(engine, monkeypatch)
    await served.stub.Sleep(pb.SleepRequest(level=pb.SLEEP_LEVEL_DROP_WEIGHTS))
    assert engine.level is SleepLevel.DROP_WEIGHTS
    await served.stub.Wake(pb.WakeRequest())
    assert engine.level is None
    assert await served.refusal(served.stub.Wake(pb.WakeRequest())) is Reason.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("model", "package"), [(LlamaCppModel(path=Path("/m.gguf")), "llama.cpp"), (MODEL, "vLLM")]
)
async def test_an_engine_that_is_not_installed_is_named_with_its_extra(
    model: LlamaCppModel | VllmModel, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "services.models.engines.llamacpp", None)
    monkeypatch.delattr("services.models.engines.llamacpp", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotLoad, match=f"^{package} is not installed here: add the extra"):
        await worker.load_engine(model, print, print)
