"""What can be said of a model of vLLM, and what of it reaches the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.models.config import ModelsSettings
from services.models.domain import Generation, Message, Role, Sampling, ToolSpec
from services.models.engines.settings import ENGINE_MODEL, LlamaCppModel, VllmModel
from services.models.engines.vllm.arguments import engine_arguments, environment
from services.models.engines.vllm.sampling import sampling_arguments, structured_arguments

ASKED = (Message(Role.USER, "Hello."),)


def test_the_engine_is_named_by_its_setting() -> None:
    vllm = ENGINE_MODEL.validate_json('{"engine": "vllm", "model": "/models/qwen3-4b"}')
    file = ENGINE_MODEL.validate_json('{"engine": "llamacpp", "path": "/models/tiny.gguf"}')
    assert isinstance(vllm, VllmModel)
    assert isinstance(file, LlamaCppModel)
    assert (vllm.id, file.id) == ("vllm/qwen3-4b", "llamacpp/tiny")
    assert VllmModel(model="Qwen/Qwen3-4B").id == "vllm/Qwen3-4B"
    assert VllmModel(model="/m", name="mine").id == "vllm/mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "vllm", "model": "/m", "no_such_key": 1},
        {"engine": "vllm", "model": "/m", "threads": 2},
        {"engine": "vllm", "model": "/m", "gpu_memory_utilization": 1.5},
        {"engine": "vllm", "model": "/m", "lora_adapters": {"../x": "/a"}},
        {"engine": "vllm"},
        {"engine": "no such engine", "path": "/m"},
        {"path": "/models/tiny.gguf"},
    ],
)
def test_a_setting_that_is_not_known_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ENGINE_MODEL.validate_python(wrong)


def test_two_models_of_one_name_are_an_error() -> None:
    models = [{"engine": "vllm", "model": "/a/m"}, {"engine": "vllm", "model": "/b/m"}]
    with pytest.raises(ValidationError, match="a name of its own"):
        ModelsSettings.model_validate({"engines": models})


def test_a_model_goes_to_its_worker_and_arrives_as_it_was() -> None:
    model = VllmModel(model="/m", lora_adapters={"terse": Path("/a")}, kv_cache_bytes=1 << 30)
    assert ENGINE_MODEL.validate_json(model.model_dump_json()) == model


def test_what_is_left_open_is_left_to_the_engine() -> None:
    arguments = engine_arguments(VllmModel(model="/m"), cpu=False)
    assert arguments["model"] == "/m"
    assert arguments["enable_prefix_caching"] is True
    left = {"max_model_len", "block_size", "quantization", "runner", "enable_lora"}
    assert not left & arguments.keys()


def test_all_that_is_said_reaches_the_engine() -> None:
    model = VllmModel(
        model="/m",
        context_length=4096,
        slots=8,
        queue=16,
        dtype="bfloat16",
        quantization="fp8",
        gpu_memory_utilization=0.4,
        kv_cache_bytes=1 << 30,
        block_size=64,
        tensor_parallel=2,
        stream_interval=6,
        scheduling="fcfs",
        prefix_cache=False,
        lora_adapters={"terse": Path("/a")},
        lora_rank=8,
        sleep=True,
        eager=True,
    )
    arguments = engine_arguments(model, cpu=False, otlp_endpoint="http://collector:4317")
    expected = {
        "max_model_len": 4096,
        "max_num_seqs": 8,
        "max_num_queued_reqs": 24,
        "dtype": "bfloat16",
        "quantization": "fp8",
        "gpu_memory_utilization": 0.4,
        "kv_cache_memory_bytes": 1 << 30,
        "block_size": 64,
        "tensor_parallel_size": 2,
        "stream_interval": 6,
        "scheduling_policy": "fcfs",
        "enable_prefix_caching": False,
        "enable_lora": True,
        "max_lora_rank": 8,
        "enable_sleep_mode": True,
        "enforce_eager": True,
        "otlp_traces_endpoint": "http://collector:4317",
    }
    assert expected.items() <= arguments.items()


def test_a_model_of_vectors_is_run_as_one() -> None:
    arguments = engine_arguments(VllmModel(model="/m", embeds=True), cpu=False)
    assert (arguments["runner"], arguments["convert"]) == ("pooling", "embed")
    assert arguments["stream_interval"] == 1


def test_on_a_cpu_blocks_are_large_enough_for_the_prefix_cache() -> None:
    assert engine_arguments(VllmModel(model="/m"), cpu=True)["block_size"] == 32
    assert engine_arguments(VllmModel(model="/m", block_size=64), cpu=True)["block_size"] == 64


def test_a_model_in_a_folder_asks_nothing_of_any_hub(tmp_path: Path) -> None:
    assert environment(VllmModel(model=str(tmp_path)))["HF_HUB_OFFLINE"] == "1"
    hub = environment(VllmModel(model="Qwen/Qwen3-4B"))
    assert "HF_HUB_OFFLINE" not in hub
    assert hub["VLLM_NO_USAGE_STATS"] == "1"


def test_what_a_request_says_wins_over_what_the_model_recommends() -> None:
    sampling = Sampling(temperature=0.0, seed=7, stop=("\n",), max_tokens=9)
    arguments = sampling_arguments(
        Generation(ASKED, sampling=sampling, logprobs=3), {"temperature": 0.6, "top_k": 20}, 100
    )
    assert arguments["temperature"] == 0
    assert (arguments["top_k"], arguments["seed"], arguments["logprobs"]) == (20, 7, 3)
    assert (arguments["stop"], arguments["max_tokens"]) == (["\n"], 9)


@pytest.mark.parametrize(("asked", "given"), [(0.0, 1e-6), (0.5, 0.5), (1.0, 1.0)])
def test_a_top_p_of_0_is_one_that_leaves_the_likeliest_token(asked: float, given: float) -> None:
    """The contract allows 0 and vLLM only what is above."""
    arguments = sampling_arguments(Generation(ASKED, sampling=Sampling(top_p=asked)), {}, 9)
    assert arguments["top_p"] == given


def test_a_reply_never_outgrows_the_context() -> None:
    assert sampling_arguments(Generation(ASKED), {}, 100)["max_tokens"] == 100
    long = Generation(ASKED, sampling=Sampling(max_tokens=500))
    assert sampling_arguments(long, {}, 100)["max_tokens"] == 100


def test_the_marks_of_tool_calls_stay_in_the_text_where_there_are_tools() -> None:
    with_tools = Generation(ASKED, tools=(ToolSpec("weather", "", ""),))
    assert sampling_arguments(with_tools, {}, 9)["skip_special_tokens"] is False
    assert sampling_arguments(Generation(ASKED), {}, 9)["skip_special_tokens"] is True


def test_an_empty_schema_means_any_object() -> None:
    assert structured_arguments("{}") == {"json_object": True}
    assert structured_arguments('{"type": "object"}') == {"json": {"type": "object"}}
