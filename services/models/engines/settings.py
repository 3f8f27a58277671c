"""What can be said of an engine's model. Pure."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9][\w.-]{0,99})?$")]
AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,99}$")]


class LlamaCppModel(BaseModel):
    """A GGUF file that llama.cpp serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["llamacpp"] = "llamacpp"
    path: Path
    """The GGUF file."""
    name: Name = ""
    """Second part of the model's id; empty: the file's name without its ending."""
    context_length: int = Field(0, ge=0, le=1_048_576)
    """Tokens of prompt and reply of one request; 0: the model's own, at most 8,192."""
    slots: int = Field(2, ge=1, le=64)
    """Replies generated at once; each has a context of its own."""
    queue: int = Field(32, ge=0, le=10_000)
    """Requests that may wait; more are refused."""
    threads: int = Field(0, ge=0, le=1024)
    """Threads of the engine; 0: one for each core it may use."""
    batch: int = Field(0, ge=0, le=8192)
    """Tokens of a prompt read between two looks at whether the reply is still wanted.

    0: from 256 for the smallest models down to 32. Larger ones read faster, and one that takes 10 s
    counts as stuck: an 8B model on two cores reads about 60 tokens in that time.
    """
    thinking: bool = False
    """Whether a model that can writes for itself before it replies."""
    embeds: bool = False
    """It makes vectors of texts and no replies."""
    gpu_layers: int = Field(0, ge=0, le=10_000)
    """Layers kept on a GPU, where the installed engine can use one."""
    load_limit_s: float = Field(120, ge=10, le=7200)
    """A worker that has not loaded the model by then is started anew."""

    @property
    def id(self) -> str:
        """The catalogue's id."""
        return f"llamacpp/{self.name or self.path.stem}"

    @property
    def admitted(self) -> tuple[int, int]:
        """How many requests go to the engine at once, and how many more wait before it."""
        return self.slots, self.queue


class VllmModel(BaseModel):
    """A model that vLLM serves; 0 and None leave a matter to vLLM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["vllm"] = "vllm"
    model: str = Field(min_length=1, max_length=1024)
    """A folder with config.json, tokenizer and safetensors, or a model's name on the hub."""
    name: Name = ""
    """Second part of the model's id; empty: the last part of `model`."""
    context_length: int = Field(0, ge=0, le=16_777_216)
    """Tokens of prompt and reply of one request; 0: the model's own."""
    slots: int = Field(64, ge=1, le=4096)
    """Replies generated at once."""
    queue: int = Field(256, ge=1, le=100_000)
    """Requests that may wait in the engine; more are refused."""
    batch_tokens: int = Field(0, ge=0, le=1_048_576)
    """Tokens of all requests together that one step of the engine reads or writes."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: str | None = Field(None, pattern=r"^[a-z0-9_]{1,40}$")
    """Such as "fp8" or "awq"; None: what the model's own files say."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory for weights and cache; models that share one need it lower."""
    kv_cache_bytes: int = Field(0, ge=0)
    """Size of the cache of keys and values; 0: what the share of the memory leaves."""
    block_size: int = Field(0, ge=0, le=1024)
    """Tokens of one block of that cache."""
    prefix_cache: bool = True
    """Prompts that begin alike are read once."""
    tensor_parallel: int = Field(1, ge=1, le=64)
    """GPUs that share each layer."""
    pipeline_parallel: int = Field(1, ge=1, le=64)
    """Groups of GPUs that share the layers among them."""
    stream_interval: int = Field(4, ge=1, le=64)
    """Tokens in one piece of a reply, after the first: larger costs less CPU."""
    scheduling: Literal["priority", "fcfs"] = "priority"
    """Whether a request's priority counts; equals are served in the order they came."""
    lora_adapters: dict[AdapterName, Path] = Field(default={}, max_length=1000)
    """Folders of LoRA adapters by the name that requests use."""
    lora_rank: int = Field(16, ge=1, le=512)
    """The largest rank among the adapters."""
    thinking: bool = False
    """Whether a model that can writes for itself before it replies."""
    embeds: bool = False
    """Serve vectors of texts instead of replies."""
    sleep: bool = False
    """Be able to sleep and wake; needs a GPU."""
    eager: bool = False
    """Compile and capture nothing: starts sooner, runs slower."""
    load_limit_s: float = Field(900, ge=10, le=7200)
    """A worker that has not loaded the model by then is started anew."""

    @property
    def id(self) -> str:
        """The catalogue's id."""
        return f"vllm/{self.name or PurePosixPath(self.model).name}"

    @property
    def admitted(self) -> tuple[int, int]:
        """How many requests go to the engine at once, and how many more wait before it.

        All wait inside, where their priority counts.
        """
        return self.slots + self.queue, 0


EngineModel = Annotated[LlamaCppModel | VllmModel, Field(discriminator="engine")]
ENGINE_MODEL: TypeAdapter[LlamaCppModel | VllmModel] = TypeAdapter(EngineModel)
