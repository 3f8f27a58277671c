"""Loading a model into vLLM: everything is looked at first that would fail obscurely inside."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.models.engines.engine import CannotLoad, Engine, Gone, Report
from services.models.engines.memory import available_bytes
from services.models.engines.settings import VllmModel
from services.models.engines.vllm.arguments import engine_arguments, environment, is_folder
from services.models.engines.vllm.checkpoint import (
    UnusableCheckpoint,
    read_checkpoint,
    require_adapter,
)
from services.models.engines.vllm.pulse import Pulse
from services.runtime.logs import get_logger

_MAX_WHY_CHARS = 300


async def load(
    model: VllmModel, report: Report, gone: Gone, otlp_endpoint: str | None = None
) -> Engine:
    """Load a model.

    Args:
        model: its settings.
        report: told what is being done.
        gone: told when the engine can serve no more.
        otlp_endpoint: where the engine's own spans go.

    Raises:
        CannotLoad: vLLM is not installed, the model is broken, unknown to it, or too large.

    """
    if importlib.util.find_spec("vllm") is None:
        raise CannotLoad("vLLM is not installed here: add the extra `vllm` of echomesh-services")
    report("looking at the model's files")
    weights_bytes, parameters = await asyncio.to_thread(_checked, model)
    for name, value in environment(model).items():
        os.environ.setdefault(name, value)
    report(f"starting vLLM with {weights_bytes / 1e6:,.0f} MB of weights")
    pulse = Pulse()
    # The kernel ends the core with the thread that started it: one that lives as long as needed.
    builder = ThreadPoolExecutor(1, "vllm")
    try:
        llm = await asyncio.get_running_loop().run_in_executor(
            builder, _build, model, weights_bytes, pulse, otlp_endpoint
        )
        _require_chat_template(model, llm)
        from services.models.engines.vllm.engine import VllmEngine

        engine = VllmEngine(model, llm, pulse, builder, gone, parameters)
        report("asking for a first reply")
        await engine.warm_up()
        return engine
    except BaseException:
        builder.shutdown(wait=False)
        raise


def _checked(model: VllmModel) -> tuple[int, int]:
    """The weights' size in memory and their number, 0 if unknown; raises CannotLoad if broken."""
    try:
        for name, folder in model.lora_adapters.items():
            require_adapter(name, folder)
        if not is_folder(model):
            return 0, 0
        found = read_checkpoint(Path(model.model))
    except UnusableCheckpoint as error:
        raise CannotLoad(str(error)) from error
    stored = found.config.get("dtype") or found.config.get("torch_dtype")
    halved = stored == "float32" and model.dtype != "float32"
    return found.size_bytes // 2 if halved else found.size_bytes, found.parameters


def _build(model: VllmModel, weights_bytes: int, pulse: Pulse, otlp_endpoint: str | None) -> Any:
    """Import vLLM and start its engine; takes from seconds to many minutes."""
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    cpu = bool(current_platform.is_cpu())
    _require_memory(model, weights_bytes, _memory_bytes(model, current_platform, cpu=cpu))
    arguments = engine_arguments(model, cpu=cpu, otlp_endpoint=otlp_endpoint)
    structured = StructuredOutputsConfig(**arguments.pop("structured_outputs_config"))
    try:
        config = AsyncEngineArgs(
            **arguments, structured_outputs_config=structured
        ).create_engine_config()
    except (ValueError, OSError) as error:
        raise CannotLoad(f"{model.id}: {_first_line(error)}") from error
    try:
        return AsyncLLM.from_vllm_config(config, stat_loggers=[pulse], disable_log_stats=True)
    except (RuntimeError, ValueError, OSError) as error:
        get_logger().exception("engine_failed_to_start", model=model.id)
        raise CannotLoad(
            f"{model.id}: vLLM's engine could not start; what it wrote above this line in the log "
            "says why, most often too little memory"
        ) from error


def _memory_bytes(model: VllmModel, platform: Any, *, cpu: bool) -> int:
    """Memory for weights and cache on each device."""
    if cpu:
        return available_bytes()
    return int(platform.get_device_total_memory() * model.gpu_memory_utilization)


def _require_memory(model: VllmModel, weights_bytes: int, there: int) -> None:
    if model.quantization is not None:
        return  # what remains of the weights is not known
    devices = model.tensor_parallel * model.pipeline_parallel
    needed = weights_bytes // devices + model.kv_cache_bytes
    if needed > there:
        raise CannotLoad(
            f"{model.id} needs at least {needed / 1e9:.1f} GB of memory and {there / 1e9:.1f} GB "
            "are there: take a smaller or quantized model, a smaller cache, or more GPUs "
            "(tensor_parallel)"
        )


def _require_chat_template(model: VllmModel, llm: Any) -> None:
    if not model.embeds and not getattr(llm.get_tokenizer(), "chat_template", None):
        llm.shutdown(timeout=0)
        raise CannotLoad(f"{model.id} has no chat template: it is a base model, not one to chat")


def _first_line(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).splitlines()[0][:_MAX_WHY_CHARS]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_MAX_WHY_CHARS]
