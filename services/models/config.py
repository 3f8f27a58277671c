"""The models service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.models.engines.settings import EngineModel
from services.runtime.settings import ServiceSettings, local_address


class Upstream(BaseModel):
    """An OpenAI-compatible server that prompts, and so private text, may be sent to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://[^\s]+$", max_length=1024)
    """Base address, such as "http://127.0.0.1:11434/v1"."""
    name: str = Field("openai", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    """First part of its models' ids."""
    model: str | None = Field(None, max_length=200)
    """The only model to offer; None: all that the server lists."""
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    """A file that holds the key, for mounted secrets; read at the start."""
    timeout_s: float = Field(60.0, gt=0, le=600)
    """How long to wait for the first text, and between two pieces of it."""
    retries: int = Field(3, ge=0, le=10)
    """Further tries, all before the first text."""
    concurrency: int = Field(8, ge=1, le=1024)
    """Replies generated at once, at most: fewer while the server is late or says it is full."""
    queue: int = Field(32, ge=0, le=10_000)
    """Requests that may wait; more are refused."""
    tools: bool = True
    json_schema: bool = True
    logprobs: bool = True
    context_length: int = Field(0, ge=0)
    """Tokens of prompt and reply; 0: what the server says."""

    @model_validator(mode="after")
    def _one_key(self) -> Upstream:
        if self.api_key and self.api_key_file:
            raise ValueError("api_key, api_key_file: give one of them")
        self.key()
        return self

    def key(self) -> SecretStr | None:
        """Its own key, wherever that stands; raises ValueError if the file cannot be read."""
        if self.api_key_file is None:
            return self.api_key
        try:
            return SecretStr(self.api_key_file.read_text("utf-8").strip())
        except OSError as error:
            raise ValueError(f"cannot read {self.api_key_file}: {error.strerror}") from error


class ModelsSettings(ServiceSettings):
    """What the models service can be told."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_MODELS_")

    mesh_address: str | None = Field(
        local_address("models"), description="host:port for other services of the mesh"
    )
    upstreams: tuple[Upstream, ...] = Field(
        (),
        description='OpenAI-compatible servers as JSON: [{"url": "http://host:port/v1"}], with '
        "optional name, model, api_key or api_key_file, timeout_s, retries, concurrency, queue, "
        "tools, json_schema, logprobs, context_length",
    )
    engines: tuple[EngineModel, ...] = Field(
        (),
        description='models of our own engines as JSON: [{"engine": "llamacpp", "path": '
        '"/models/tiny.gguf"}, {"engine": "vllm", "model": "/models/qwen3-4b"}], with optional '
        "name, context_length, slots, queue and more (docs/models.md)",
    )
    upstream_api_key: SecretStr | None = Field(
        None, description="key of the one upstream that names none of its own"
    )
    extractive_concurrency: Annotated[int, Field(ge=1)] = Field(
        8, description="replies quoted from memories at once"
    )
    extractive_queue: Annotated[int, Field(ge=0)] = Field(
        256, description="requests for such replies that may wait before more are refused"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> ModelsSettings:
        names = [upstream.name for upstream in self.upstreams]
        if len(set(names)) < len(names):
            raise ValueError("upstreams: give each a name of its own")
        ids = [engine.id for engine in self.engines]
        if len(set(ids)) < len(ids):
            raise ValueError("engines: give each a name of its own")
        keyless = [u for u in self.upstreams if u.api_key is None and u.api_key_file is None]
        if self.upstream_api_key and len(keyless) > 1:
            raise ValueError("upstream_api_key: one upstream may lack a key of its own, not more")
        return self

    def keyed_upstreams(self) -> list[Upstream]:
        """Returns the upstreams, each with the key it is to use."""
        key = self.upstream_api_key
        return [
            upstream.model_copy(update={"api_key": upstream.key() or key, "api_key_file": None})
            for upstream in self.upstreams
        ]
