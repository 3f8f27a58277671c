"""llama.cpp in this process: a GGUF file behind the engine's contract.

The native server of `xllamacpp` runs here; requests go to it by calls, not by its HTTP, which
listens on loopback all the same and so is closed with a key that nobody else knows. It speaks the
Chat Completions format. A generation is stopped from the callback that gets its pieces, and while
the prompt is read there is a piece for each batch.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
from xllamacpp import CommonParams, Server, llama_pooling_type

from services.models.domain import Event, Generation, Vector
from services.models.engines.engine import Abilities, CannotLoad, Engine, Report, Step
from services.models.engines.gguf import ModelFile, UnusableFile, read_head
from services.models.engines.memory import available_bytes
from services.models.engines.settings import LlamaCppModel
from services.models.failures import bad_response, lacks, refused, too_long
from services.models.openai import wire
from services.runtime.concurrently import all_of
from services.runtime.errors import AppError

DEFAULT_CONTEXT = 8_192
"""Tokens of context where nothing is said: more costs memory, and prompts are below 4,000."""

DEFAULT_EMBED_CONTEXT = 2_048
"""The same for vectors, where all of it is one batch: see `LlamaCppModel.batch`."""

PROMPT_CACHE_MIB = 512
"""Prompts read before are kept in so much memory; left to itself the engine takes up to 8 GiB."""

# Tokens of a batch times weights: about two seconds of one core.
_BATCH_WORK = 40_000_000_000
_LEAST_BATCH, _MOST_BATCH = 32, 256

_TOO_LONG = "exceed_context_size_error"
_COUNT_LIMIT_S = 5.0


async def load(model: LlamaCppModel, report: Report) -> LlamaCppEngine:
    """Load a GGUF file.

    Raises:
        CannotLoad: the file is broken, of an unknown kind, or too large for this machine.

    """
    report("reading the file's head")
    try:
        file = await asyncio.to_thread(read_head, model.path)
    except UnusableFile as error:
        raise CannotLoad(str(error)) from error
    default = DEFAULT_EMBED_CONTEXT if model.embeds else DEFAULT_CONTEXT
    context = model.context_length or min(default, file.context_length or default)
    _require_usable(model, file, context * model.slots)
    report(f"loading {file.size_bytes / 1e6:,.0f} MB")
    key = secrets.token_urlsafe(32)
    try:
        server = await asyncio.to_thread(Server, _params(model, file, context, key))
    except RuntimeError as error:
        raise CannotLoad(
            f"{model.path}: llama.cpp cannot load this {file.architecture or 'unknown'} model; "
            "it is broken or of a kind newer than the engine"
        ) from error
    return LlamaCppEngine(model, server, key, _abilities(model, file, context))


def _abilities(model: LlamaCppModel, file: ModelFile, context: int) -> Abilities:
    writes = not model.embeds
    return Abilities(
        context,
        tools=writes,
        json_schema=writes,
        logprobs=writes,
        embeds=model.embeds,
        parameters=file.parameters,
    )


def _require_usable(model: LlamaCppModel, file: ModelFile, context_tokens: int) -> None:
    if not (file.chat_template or model.embeds):
        raise CannotLoad(f"{file.path} has no chat template: take the variant made to chat")
    needed, there = file.needed_bytes(context_tokens), available_bytes()
    # What goes to a GPU needs no memory here, and how much that is only the engine knows.
    if needed > there and not model.gpu_layers:
        raise CannotLoad(
            f"{file.path} needs about {needed / 1e9:.1f} GB of memory and {there / 1e9:.1f} GB are "
            "free: take a smaller file, fewer slots or a shorter context"
        )


def default_batch(parameters: int) -> int:
    """Return how many tokens of a prompt a model of that size reads at once."""
    return max(_LEAST_BATCH, min(_MOST_BATCH, _BATCH_WORK // max(1, parameters)))


def _params(model: LlamaCppModel, file: ModelFile, context: int, key: str) -> Any:
    params = CommonParams()
    params.embedding = model.embeds
    if model.embeds and not file.pooling:
        params.pooling_type = llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.model.path = str(model.path)
    params.model_alias = {model.id}
    params.n_ctx = context * model.slots
    params.n_parallel = model.slots
    # A text is made a vector in one batch.
    batch = context if model.embeds else model.batch or default_batch(file.parameters)
    params.n_batch = params.n_ubatch = batch
    params.n_gpu_layers = model.gpu_layers
    if model.threads:
        params.cpuparams.n_threads = model.threads
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.api_keys = [key]
    params.ui = False
    params.verbosity = 0
    return params


class LlamaCppEngine(Engine):
    """A loaded GGUF file; a thread for each slot waits for the native server."""

    def __init__(self, model: LlamaCppModel, server: Any, key: str, abilities: Abilities) -> None:
        self.id = model.id
        self._model = model
        self._server = server
        self._threads = ThreadPoolExecutor(model.slots, "llamacpp")
        self._http = httpx.AsyncClient(
            base_url=server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_COUNT_LIMIT_S,
            trust_env=False,
        )
        self.abilities = abilities

    async def generate(self, request: Generation, step: Step) -> AsyncGenerator[Event, None]:
        """See `Engine.generate`; stops within one token, or one batch of the prompt."""
        model = self._model.id
        if self.abilities.embeds:
            raise lacks(model, "text")
        reader = wire.Reader(model, "".join(message.content for message in request.messages))
        body = wire.request_body(request, model) | {
            "return_progress": True,
            "chat_template_kwargs": {"enable_thinking": self._model.thinking},
        }
        try:
            async for piece in self._pieces(body):
                step()
                _raise_for(piece, model)
                if text := reader.take(piece):
                    yield text
            for event in reader.end():
                yield event
        except wire.Nonsense as error:
            raise bad_response(model, str(error)) from error
        except wire.BrokeOff as error:
            raise bad_response(model, "it broke off") from error

    async def _pieces(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """What the native server calls back with; leaving this iterator stops it."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        stopped = False

        def take(piece: dict[str, Any]) -> bool:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)
            return stopped

        call = self._server.handle_chat_completions
        work = loop.run_in_executor(self._threads, call, body, take)
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await self._ended(work)
        finally:
            stopped = True
            # The slot is free only now: an answer before that would promise what is not there.
            with suppress(Exception):
                await asyncio.shield(work)

    async def _ended(self, work: asyncio.Future[Any]) -> None:
        try:
            await work
        except ValueError as error:
            raise refused(self._model.id, "it is not what the engine understands") from error
        except Exception as error:
            raise bad_response(self._model.id, "the engine failed") from error

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine.count_tokens`."""
        return [len(await self._tokens(text, special=False)) for text in texts]

    async def _tokens(self, text: str, *, special: bool) -> list[int]:
        body = {"content": text, "add_special": special}
        answer = await self._http.post("/tokenize", json=body)
        tokens: list[int] = answer.raise_for_status().json()["tokens"]
        return tokens

    async def embed(self, texts: Sequence[str], step: Step) -> list[Vector]:
        """See `Engine.embed`; as many texts at once as there are slots."""
        if not self.abilities.embeds:
            raise lacks(self.id, "embed")
        return await all_of(self._vector(text, step) for text in texts)

    async def _vector(self, text: str, step: Step) -> Vector:
        tokens = await self._tokens(text, special=True)
        limit = self.abilities.context_length
        call, body = self._server.handle_embeddings, {"input": tokens[:limit]}
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, call, body)
        step()
        if error := answer.get("error"):
            raise _meaning(error, self.id)
        vector = np.asarray(answer["data"][0]["embedding"], "<f4")
        return Vector(vector.tobytes(), min(len(tokens), limit), truncated=len(tokens) > limit)

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._http.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._server = None


def _raise_for(piece: dict[str, Any], model: str) -> None:
    """Raise what an error in place of a piece means."""
    error = piece.get("error")
    if not error:
        return
    raise _meaning(error if isinstance(error, dict) else {}, model)


def _meaning(error: dict[str, Any], model: str) -> AppError:
    if error.get("type") == _TOO_LONG:
        return too_long(model)
    if error.get("code") == 400:
        return refused(model, "it is not what the engine understands")
    return bad_response(model, "the engine failed")
