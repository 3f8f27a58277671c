"""The memory service's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.memory.outbox import OutboxLimits
from services.memory.recaller import RecallLimits
from services.runtime.settings import ServiceSettings, local_address


class MemorySettings(ServiceSettings):
    """What the memory service can be told."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_MEMORY_")

    public_address: str | None = Field(
        local_address("memory", "public"), description="host:port for SDKs"
    )
    mesh_address: str | None = Field(
        local_address("memory"), description="host:port for other services of the mesh"
    )
    jobs_database_url: SecretStr | None = Field(
        None, description="Postgres as the role memory_jobs, for background work"
    )
    database_pool: int = Field(8, ge=1, description="connections for requests at most")
    qdrant_url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+/?$",
        description="a Qdrant server, as http://host:6334 (gRPC); unset: the edge index",
    )
    qdrant_api_key: SecretStr | None = Field(None, description="the Qdrant server's API key")
    qdrant_collection: str = Field(
        "echomesh_memories", description="start of the collection's name on that server"
    )
    index_dir: Path = Field(
        default_factory=lambda data: data["data_dir"] / "memory" / "index",
        description="folder of the edge index",
    )
    embedding_dimensions: int = Field(
        384, ge=1, description="dimensions of the embedding model's vectors"
    )
    recall_embed_s: float = Field(0.4, gt=0, description="limit for embedding a question, seconds")
    recall_index_s: float = Field(1.0, gt=0, description="limit for searching the index, seconds")
    recall_pending_rows: int = Field(
        500, ge=0, description="rows not indexed yet that one recall scores from Postgres"
    )
    recall_keyword_rows: int = Field(
        20_000, ge=1, description="newest rows that keyword recall reads without the index"
    )
    index_batch: int = Field(64, ge=1, description="memories indexed at once")
    index_concurrency: int = Field(2, ge=1, description="batches indexed at the same time")
    index_attempts: int = Field(8, ge=1, description="attempts before a failing job is held")

    @property
    def recall_limits(self) -> RecallLimits:
        """Recall's bounds."""
        return RecallLimits(
            embed_s=self.recall_embed_s,
            index_s=self.recall_index_s,
            pending_rows=self.recall_pending_rows,
            keyword_rows=self.recall_keyword_rows,
        )

    @property
    def outbox_limits(self) -> OutboxLimits:
        """The outbox runner's bounds."""
        return OutboxLimits(
            batch=self.index_batch,
            concurrent=self.index_concurrency,
            attempts=self.index_attempts,
        )
