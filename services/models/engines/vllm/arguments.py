"""A model's settings as vLLM's engine arguments and environment. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.models.engines.settings import VllmModel

# With smaller blocks the CPU engine finds no prompt's beginning again.
_CPU_BLOCK_TOKENS = 32
MAX_LOGPROBS = 20
"""As many as the contract lets a request ask for."""


def engine_arguments(
    model: VllmModel, *, cpu: bool, otlp_endpoint: str | None = None
) -> dict[str, Any]:
    """Return the arguments of `AsyncEngineArgs`.

    Args:
        model: the settings; what they leave open is left to vLLM.
        cpu: whether the engine runs on a CPU.
        otlp_endpoint: where the engine's own spans go.

    """
    given = {
        "max_model_len": model.context_length,
        "max_num_batched_tokens": model.batch_tokens,
        "kv_cache_memory_bytes": model.kv_cache_bytes,
        "block_size": model.block_size or (_CPU_BLOCK_TOKENS if cpu else 0),
        "quantization": model.quantization,
        "otlp_traces_endpoint": otlp_endpoint,
    }
    return {
        "model": model.model,
        "dtype": model.dtype,
        "gpu_memory_utilization": model.gpu_memory_utilization,
        "max_num_seqs": model.slots,
        # vLLM counts those that run among them.
        "max_num_queued_reqs": model.slots + model.queue,
        "max_logprobs": MAX_LOGPROBS,
        "enable_prefix_caching": model.prefix_cache,
        # vLLM counts the tokens of a reply where there is an interval: vectors have none.
        "stream_interval": 1 if model.embeds else model.stream_interval,
        "scheduling_policy": model.scheduling,
        "tensor_parallel_size": model.tensor_parallel,
        "pipeline_parallel_size": model.pipeline_parallel,
        "enable_sleep_mode": model.sleep,
        "enforce_eager": model.eager,
        # Small models else fill a JSON reply with white space until their tokens are spent.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "disable_log_stats": True,
        **_adapters(model),
        **({"runner": "pooling", "convert": "embed"} if model.embeds else {}),
        **{name: value for name, value in given.items() if value},
    }


def _adapters(model: VllmModel) -> dict[str, Any]:
    if not model.lora_adapters:
        return {}
    return {
        "enable_lora": True,
        "max_loras": min(len(model.lora_adapters), 8),
        "max_cpu_loras": max(len(model.lora_adapters), 8),
        "max_lora_rank": model.lora_rank,
    }


def environment(model: VllmModel) -> dict[str, str]:
    """Return what vLLM is to find in the environment, unless something else is set there."""
    values = {
        # Nothing is told to anybody unasked.
        "VLLM_NO_USAGE_STATS": "1",
        # gRPC has been used by then, and a process that used it cannot be forked.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(int(model.load_limit_s)),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OTEL_SERVICE_NAME": "vllm",
    }
    if model.eager:
        # The setting alone leaves some small functions to be compiled when first used.
        values["TORCH_COMPILE_DISABLE"] = "1"
    if is_folder(model):
        values["HF_HUB_OFFLINE"] = "1"
    return values


def is_folder(model: VllmModel) -> bool:
    """Whether the model is a folder here and not a name on the hub."""
    return Path(model.model).is_absolute() or Path(model.model).exists()
