"""The embeddings service's settings."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.embeddings.backlog import QueueLimits
from services.embeddings.batching import BatchLimits
from services.embeddings.engine import EngineLimits
from services.runtime.settings import ServiceSettings, local_address

LARGEST_REQUEST = 256  # texts in one request, as the contract says: an empty queue takes them all


class EmbeddingsSettings(ServiceSettings):
    """What the embeddings service can be told."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_EMBEDDINGS_")

    mesh_address: str | None = Field(
        local_address("embeddings"), description="host:port for other services of the mesh"
    )
    model_dir: Path | None = Field(
        None, description="a local sentence-transformers model folder; unset: the packaged MiniLM"
    )
    built_model: Path | None = Field(
        None,
        description="a model folder that was built before, as images hold it; used without "
        "model_dir",
    )
    dense_model: str | None = Field(
        None,
        max_length=256,
        description="a model of the models service that makes the dense vectors (vllm/NAME); "
        "unset: the packaged one",
    )
    dense_dimensions: int = Field(
        384,
        ge=1,
        description="dimensions of that model's vectors; memory's embedding_dimensions is the same",
    )
    threads: int = Field(
        default_factory=lambda: min(4, os.cpu_count() or 1),
        ge=1,
        description="batches computed at once",
    )
    cache_mb: int = Field(64, ge=1, description="bound of the cache of vectors, in MiB")
    queue_texts: int = Field(
        2048,
        ge=LARGEST_REQUEST,
        description="texts that may wait, per priority, before requests are refused",
    )
    queue_mb: int = Field(16, ge=1, description="size of these texts, per priority, in MiB")
    batch_texts: int = Field(8, ge=1, description="texts in one batch at most")
    batch_tokens: int = Field(512, ge=1, description="tokens in one batch at most, with padding")

    @property
    def models_dir(self) -> Path:
        """Where built models are kept."""
        return self.data_dir / "embeddings" / "models"

    @property
    def limits(self) -> EngineLimits:
        """The engine's bounds."""
        return EngineLimits(
            threads=self.threads,
            cache_bytes=self.cache_mb << 20,
            queue=QueueLimits(texts=self.queue_texts, text_bytes=self.queue_mb << 20),
            batches=BatchLimits(texts=self.batch_texts, tokens=self.batch_tokens),
        )
