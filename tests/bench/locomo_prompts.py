"""A language model that only writes down the prompts it is given."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from echomesh import Client
from tests.support.openai_double import OpenAIDouble, openai_double

_UPSTREAM = "reader"
_CONTEXT_TOKENS = 32_768


@dataclass(frozen=True)
class PromptReader:
    """A running server, to be configured as an upstream of the mesh."""

    double: OpenAIDouble

    @property
    def environment(self) -> dict[str, str]:
        """The setting that makes it a model of the mesh."""
        upstream = {
            "url": self.double.url,
            "name": _UPSTREAM,
            "context_length": _CONTEXT_TOKENS,
        }
        return {"ECHOMESH_MODELS_UPSTREAMS": json.dumps([upstream])}

    async def prompt_for(
        self, client: Client, text: str, *, speaker: str, tier: str
    ) -> tuple[str, bool]:
        """Ask through Chat; return the whole prompt that the model got, and whether late.

        Spaces are normalised. Late means that what was recalled missed its share of the tier.
        """
        messages, late = await self.messages_for(client, text, speaker=speaker, tier=tier)
        return " ".join(" ".join(message["content"] for message in messages).split()), late

    async def messages_for(
        self, client: Client, text: str, *, speaker: str, tier: str
    ) -> tuple[list[dict[str, str]], bool]:
        """Ask through Chat; return the prompt's messages (role and content), and whether late."""
        self.double.requests.clear()
        model = f"{_UPSTREAM}/{self.double.models[0]['id']}"
        _, final = await client.reply(text, model=model, tier=tier, store=False, speaker=speaker)
        assert final.model == model, f"{model} did not answer"
        return self.double.requests[-1]["messages"], "memory" in final.degraded


@asynccontextmanager
async def prompt_reader() -> AsyncIterator[PromptReader]:
    """A running reader, stopped at the end."""
    async with openai_double() as double:
        yield PromptReader(double)
