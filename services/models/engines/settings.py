"""What can be said of an engine's model. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LlamaCppModel(BaseModel):
    """A GGUF file that llama.cpp serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["llamacpp"] = "llamacpp"
    path: Path
    """The GGUF file."""
    name: str = Field("", pattern=r"^([A-Za-z0-9][\w.-]{0,99})?$")
    """Second part of the model's id; empty: the file's name without its ending."""
    context_length: int = Field(0, ge=0, le=1_048_576)
    """Tokens of prompt and reply of one request; 0: the model's own, at most 8,192."""
    slots: int = Field(2, ge=1, le=64)
    """Replies generated at once; each has a context of its own."""
    queue: int = Field(32, ge=0, le=10_000)
    """Requests that may wait; more are refused."""
    threads: int = Field(0, ge=0, le=1024)
    """Threads of the engine; 0: one for each core it may use."""
    batch: int = Field(256, ge=16, le=8192)
    """Tokens of a prompt read between two looks at whether the reply is still wanted."""
    gpu_layers: int = Field(0, ge=0, le=10_000)
    """Layers kept on a GPU, where the installed engine can use one."""

    @property
    def id(self) -> str:
        """The catalogue's id."""
        return f"llamacpp/{self.name or self.path.stem}"


EngineModel = LlamaCppModel
