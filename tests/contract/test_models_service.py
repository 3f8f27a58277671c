"""ModelService over the wire, as routing sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from echomesh.models.v1 import models_pb2 as pb
from echomesh.models.v1 import models_pb2_grpc as pb_grpc
from services.models.catalogue import Catalogue
from services.models.coalesce import coalesced
from services.models.config import ModelsSettings, Upstream
from services.models.domain import (
    Event,
    Finish,
    FinishReason,
    Generation,
    ModelCard,
    State,
    Text,
    ToolCall,
    Usage,
    Vector,
)
from services.models.extractive.backend import ExtractiveBackend
from services.models.extractive.turns import TokenGrid
from services.models.server import SERVICE
from services.models.service import ModelServicer
from services.runtime.errors import AppError, Reason
from services.runtime.limits import Gate
from services.runtime.server import Registration
from services.runtime.settings import SettingsError
from tests.support.transport import serving
from tests.support.waiting import overdue


class NoEmbedder:
    """An embeddings service that is away."""

    async def grids(self, texts: Sequence[str]) -> dict[str, TokenGrid]:
        return {}


class ScriptedBackend:
    """Generates what the test says; `stopped` is set when a generation is closed early."""

    def __init__(self, *events: Event, state: State = State.READY, hold: bool = False) -> None:
        self.card = ModelCard("lab/one", "openai", state, 4096, tools=True)
        self.events = events
        self.hold = hold
        self.seen: list[Generation] = []
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    def models(self) -> Sequence[ModelCard]:
        return [self.card]

    async def generate(self, request: Generation, card: ModelCard) -> AsyncGenerator[Event, None]:
        self.seen.append(request)
        self.begun.set()
        try:
            for event in self.events:
                yield event
            if self.hold:
                await asyncio.Event().wait()
        finally:
            self.stopped.set()


class CountingBackend(ScriptedBackend):
    """One whose engine counts a token for each letter, or says why it cannot."""

    error: AppError | None = None

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        if self.error is not None:
            raise self.error
        return [len(text) for text in texts]


END = Finish(FinishReason.STOP, Usage(3, 2, 1), "lab/one")


@pytest.fixture
def scripted() -> ScriptedBackend:
    return ScriptedBackend(Text("a"), Text("b"), ToolCall("c", "look", "{}"), Text("d"), END)


@asynccontextmanager
async def serve(
    tmp_path: Path, backend: ScriptedBackend
) -> AsyncIterator[pb_grpc.ModelServiceStub]:
    catalogue = Catalogue([backend, ExtractiveBackend(NoEmbedder(), Gate(2, 2))])
    registration = Registration(
        pb_grpc.add_ModelServiceServicer_to_server, ModelServicer(catalogue), SERVICE
    )
    async with serving(tmp_path, registration, name="models") as wire, wire.mesh() as channel:
        yield pb_grpc.ModelServiceStub(channel)


@pytest.fixture
async def stub(
    scripted: ScriptedBackend, tmp_path: Path
) -> AsyncIterator[pb_grpc.ModelServiceStub]:
    async with serve(tmp_path, scripted) as served:
        yield served


def ask(text: str = "Hi", model: str = "", **more: object) -> pb.GenerateRequest:
    message = pb.ChatMessage(role=pb.CHAT_ROLE_USER, content=text)
    return pb.GenerateRequest(model=model, messages=[message], **more)  # type: ignore[arg-type]


def evidence(text: str) -> pb.Evidence:
    said = pb.Evidence(id="m1", speaker="Nora", text=text, score=1.0, fused=1.0)
    said.time.FromDatetime(datetime(2026, 3, 4, tzinfo=UTC))
    return said


async def all_of(stub: pb_grpc.ModelServiceStub, request: pb.GenerateRequest) -> list[object]:
    return [response async for response in stub.Generate(request)]


async def failure_of(stub: pb_grpc.ModelServiceStub, request: pb.GenerateRequest) -> AppError:
    with pytest.raises(AppError) as caught:
        await all_of(stub, request)
    return caught.value


async def test_a_reply_streams_text_and_tool_calls_and_ends_with_one_finish(stub):
    responses = await all_of(stub, ask())
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds[-1] == "finish"
    assert kinds.count("finish") == 1
    text = "".join(response.text for response in responses)
    assert text == "abd"
    assert [r.tool_call.name for r in responses if r.WhichOneof("event") == "tool_call"] == ["look"]
    finish = responses[-1].finish
    assert (finish.reason, finish.model) == (pb.FINISH_REASON_STOP, "lab/one")
    assert finish.usage == pb.Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)


async def test_what_routing_asks_for_reaches_the_backend(stub, scripted):
    sampling = pb.Sampling(temperature=0.0, stop=["x"], max_tokens=5)
    await all_of(stub, ask("Hello", sampling=sampling, tools=[pb.Tool(name="look")]))
    seen = scripted.seen[0]
    assert seen.messages[0].content == "Hello"
    assert (seen.sampling.temperature, seen.sampling.top_p) == (0.0, None)
    assert (seen.sampling.stop, seen.sampling.max_tokens) == (("x",), 5)
    assert seen.tools[0].name == "look"


async def test_the_extractive_model_answers_from_the_evidence_alone(stub):
    request = ask(
        "What is my locker code?",
        model="extractive",
        user_name="Nora",
        evidence=[evidence("My locker code is 4417.")],
    )
    first, last = await all_of(stub, request)
    assert first.text == 'On 4 March 2026 you told me: "My locker code is 4417."'
    assert list(last.finish.quoted_evidence_ids) == ["m1"]
    assert last.finish.confidence > 0.59


async def test_cancelling_the_call_stops_the_generation(stub, scripted):
    scripted.hold = True
    scripted.events = (Text("a"),)
    call = stub.Generate(ask())
    assert (await anext(aiter(call))).text == "a"
    call.cancel()
    await asyncio.wait_for(scripted.stopped.wait(), 30)


async def test_the_deadline_stops_the_generation(stub, scripted):
    scripted.hold = True
    scripted.events = (Text("a"),)
    late = await overdue(lambda: all_of(stub, ask()), scripted.begun)
    assert late.reason is Reason.DEADLINE_EXCEEDED
    await asyncio.wait_for(scripted.stopped.wait(), 30)


async def test_an_unknown_model_is_not_found(stub):
    assert (await failure_of(stub, ask(model="nobody"))).reason is Reason.NOT_FOUND


async def test_a_model_that_lacks_an_ability_says_which(stub):
    error = await failure_of(stub, ask(model="extractive", tools=[pb.Tool(name="look")]))
    assert error.reason is Reason.MODEL_LACKS_ABILITY
    assert error.metadata["ability"] == "tools"
    wanted = pb.ResponseFormat(json_schema="{}")
    error = await failure_of(stub, ask(model="lab/one", response_format=wanted))
    assert error.metadata["ability"] == "response_format"


async def test_a_model_that_is_away_is_unavailable_and_says_when_to_try_again(stub, scripted):
    scripted.card = ModelCard("lab/one", "openai", State.AWAY)
    error = await failure_of(stub, ask(model="lab/one"))
    assert error.reason is Reason.MODEL_UNAVAILABLE
    assert error.retry_after_s
    assert (await all_of(stub, ask("Hello")))[-1].finish.model == "extractive"


@pytest.mark.parametrize(
    "broken",
    [
        pb.GenerateRequest(),
        ask(tools=[pb.Tool(name="look", parameters_json="{nonsense")]),
        ask(response_format=pb.ResponseFormat(json_schema="[]")),
    ],
)
async def test_a_request_that_is_not_valid_is_refused_before_any_backend(stub, scripted, broken):
    assert (await failure_of(stub, broken)).reason is Reason.INVALID_REQUEST
    assert scripted.seen == []


async def test_the_list_shows_every_model_with_state_and_abilities(stub, scripted):
    scripted.card = ModelCard("lab/one", "openai", State.AWAY, 4096, tools=True)
    listed = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [(m.id, m.state, m.generative) for m in listed] == [
        ("lab/one", pb.MODEL_STATE_AWAY, True),
        ("extractive", pb.MODEL_STATE_READY, False),
    ]
    assert (listed[0].context_length, listed[0].tools, listed[0].json_schema) == (4096, True, False)


async def test_tokens_are_counted_for_each_text_and_said_to_be_estimates(stub):
    counted = await stub.CountTokens(pb.CountTokensRequest(texts=["", "four", "five!"]))
    assert list(counted.tokens) == [0, 1, 2]
    assert not counted.exact


@pytest.mark.parametrize("model", ["", "lab/one"])
async def test_an_engine_with_its_tokenizer_at_hand_counts_exactly(tmp_path, model):
    async with serve(tmp_path, CountingBackend()) as stub:
        request = pb.CountTokensRequest(model=model, texts=["", "four", "five!"])
        counted = await stub.CountTokens(request)
        assert (list(counted.tokens), counted.exact) == ([0, 4, 5], True)
        request.model = "extractive"
        counted = await stub.CountTokens(request)
        assert (list(counted.tokens), counted.exact) == ([0, 1, 2], False)


@pytest.mark.parametrize("state", [State.LOADING, State.AWAY, State.READY])
async def test_while_the_engine_is_away_tokens_are_estimated(tmp_path, state):
    """Also when it goes just then."""
    backend = CountingBackend(state=state)
    backend.error = AppError(Reason.MODEL_UNAVAILABLE, "gone")
    async with serve(tmp_path, backend) as stub:
        counted = await stub.CountTokens(pb.CountTokensRequest(model="lab/one", texts=["four"]))
    assert (list(counted.tokens), counted.exact) == ([1], False)


class EmbeddingBackend(ScriptedBackend):
    """One whose model makes vectors; of the text "long" it reads the beginning."""

    def __init__(self, state: State = State.READY, *, embeds: bool = True) -> None:
        super().__init__(state=state)
        self.card = ModelCard("lab/vectors", "vllm", state, embeds=embeds)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        return [Vector(text.encode(), len(text), text == "long") for text in texts]


async def test_a_model_of_vectors_makes_one_for_each_text_in_order(tmp_path):
    async with serve(tmp_path, EmbeddingBackend()) as stub:
        answer = await stub.Embed(pb.EmbedRequest(model="lab/vectors", texts=["a", "long"]))
    found = [(one.vector, one.tokens, one.truncated) for one in answer.embeddings]
    assert found == [(b"a", 1, False), (b"long", 4, True)]


@pytest.mark.parametrize(
    ("backend", "model", "reason"),
    [
        (EmbeddingBackend(), "lab/none", Reason.NOT_FOUND),
        (EmbeddingBackend(), "extractive", Reason.MODEL_LACKS_ABILITY),
        (EmbeddingBackend(embeds=False), "lab/vectors", Reason.MODEL_LACKS_ABILITY),
        (EmbeddingBackend(State.AWAY), "lab/vectors", Reason.MODEL_UNAVAILABLE),
        (EmbeddingBackend(), "", Reason.INVALID_REQUEST),
    ],
)
async def test_a_model_that_makes_no_vectors_says_so(tmp_path, backend, model, reason):
    async with serve(tmp_path, backend) as stub:
        with pytest.raises(AppError) as caught:
            await stub.Embed(pb.EmbedRequest(model=model, texts=["a"]))
    assert caught.value.reason is reason


async def test_the_tokens_of_an_unknown_model_are_not_counted(stub):
    with pytest.raises(AppError) as caught:
        await stub.CountTokens(pb.CountTokensRequest(model="lab/none", texts=["four"]))
    assert caught.value.reason is Reason.NOT_FOUND


async def test_texts_that_come_together_share_a_message_but_the_first_goes_out_at_once():
    backend = ScriptedBackend(*(Text(str(n)) for n in range(500)), END)
    events = [event async for event in coalesced(backend.generate(None, backend.card))]
    texts = [event.text for event in events if isinstance(event, Text)]
    assert "".join(texts) == "".join(map(str, range(500)))
    assert len(texts) < 20
    assert events[-1] == END


async def test_what_came_before_a_failure_is_still_sent():
    async def failing() -> AsyncGenerator[Event, None]:
        yield Text("a")
        raise AppError(Reason.MODEL_UNAVAILABLE, "gone")

    seen: list[Event] = []
    with pytest.raises(AppError):
        async for event in coalesced(failing()):
            seen.append(event)
    assert seen == [Text("a")]


def test_upstreams_come_from_one_setting_as_json_and_one_may_take_the_common_key():
    settings = ModelsSettings.load(
        {
            "ECHOMESH_MODELS_UPSTREAMS": '[{"url": "http://a/v1", "model": null}, '
            '{"url": "https://b/v1", "name": "b", "api_key": "own"}]',
            "ECHOMESH_MODELS_UPSTREAM_API_KEY": "shared",
        }
    )
    keys = [u.api_key.get_secret_value() for u in settings.keyed_upstreams() if u.api_key]
    assert keys == ["shared", "own"]
    assert "shared" not in repr(settings)


def test_the_common_key_is_never_given_to_several_upstreams():
    """A local server's key must not reach somebody else's."""
    with pytest.raises(SettingsError, match="upstream_api_key"):
        ModelsSettings.load(
            {
                "ECHOMESH_MODELS_UPSTREAMS": '[{"url": "http://a"}, '
                '{"url": "http://b", "name": "b"}]',
                "ECHOMESH_MODELS_UPSTREAM_API_KEY": "shared",
            }
        )


@pytest.mark.parametrize(
    "upstreams",
    [
        '[{"url": "ftp://a"}]',
        '[{"url": "http://a", "colour": "red"}]',
        '[{"url": "http://a"}, {"url": "http://b"}]',
    ],
)
def test_an_upstream_that_makes_no_sense_ends_the_start_in_one_line(upstreams):
    with pytest.raises(SettingsError) as caught:
        ModelsSettings.load({"ECHOMESH_MODELS_UPSTREAMS": upstreams})
    assert "\n" not in str(caught.value)


def test_an_upstream_has_the_promised_defaults():
    upstream = Upstream(url="http://a/v1")
    assert (upstream.timeout_s, upstream.retries) == (60.0, 3)
