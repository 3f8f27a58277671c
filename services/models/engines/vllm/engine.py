"""A model in vLLM's `AsyncLLM`, which runs in this process; its engine core is a child of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from opentelemetry import propagate
from vllm import PoolingParams, SamplingParams
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.inputs import TokensInput, tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError

from services.models.domain import Event, Generation, Vector
from services.models.engines.engine import Abilities, Engine, Gone, Load, SleepLevel, Step
from services.models.engines.settings import VllmModel
from services.models.engines.vllm.prompt import Prompts, takes_tools
from services.models.engines.vllm.pulse import Pulse
from services.models.engines.vllm.reply import ReplyReader
from services.models.engines.vllm.sampling import sampling_arguments, structured_arguments
from services.models.engines.vllm.sleeping import Sleeper
from services.models.failures import away, bad_response, lacks, overloaded, refused
from services.runtime.concurrently import all_of
from services.runtime.errors import AppError
from services.runtime.logs import get_logger
from services.runtime.worker import STALL_LIMIT_S

_LOOK_S = 0.2
"""How often to look whether the engine core still runs; kill -9 of it must be noticed soon."""
_LOOKS_A_PING = 25
"""At every so many looks the core is asked for a sign of life: a frozen one has not ended, and
requests may reach their deadlines before they seem stuck."""
_BEFORE_ALL = -1001
"""Requests have priorities from -1,000; the lowest goes first."""
_PROBE_TEXT, _PROBE_TOKENS = "One, two, three, four, five,", 8


class VllmEngine(Engine):
    """A loaded model.

    Args:
        model: its settings.
        llm: the `AsyncLLM`.
        pulse: its stat logger.
        builder: the thread that made `llm`: the core ends with it, so it lives until `close`.
        gone: told when the engine can serve no more.
        parameters: how many weights it has; 0 if unknown.

    """

    def __init__(
        self,
        model: VllmModel,
        llm: Any,
        pulse: Pulse,
        builder: ThreadPoolExecutor,
        gone: Gone,
        parameters: int = 0,
    ) -> None:
        self.id = model.id
        self._llm = llm
        self._pulse = pulse
        self._builder = builder
        self._gone = gone
        self._sleeper = Sleeper(model.id, llm, self._probe, gone) if model.sleep else None
        self._adapters = {
            name: LoRARequest(name, number, str(folder))
            for number, (name, folder) in enumerate(model.lora_adapters.items(), 1)
        }
        self._scheduled = model.scheduling == "priority"
        self._texts = asyncio.Semaphore(model.slots)
        self._numbers = itertools.count(1)
        tokenizer, context = llm.get_tokenizer(), llm.model_config.max_model_len
        self._prompts = Prompts(model.id, tokenizer, context, thinking=model.thinking)
        self._defaults = llm.model_config.get_diff_sampling_param()
        self.abilities = Abilities(
            context,
            tools=not model.embeds and takes_tools(tokenizer.chat_template or ""),
            json_schema=not model.embeds,
            lora_adapters=tuple(model.lora_adapters),
            logprobs=not model.embeds,
            embeds=model.embeds,
            sleeps=model.sleep,
            parameters=parameters,
        )
        self._watch = asyncio.create_task(self._keep_looking())

    def load(self) -> Load:
        """See `Engine.load`."""
        return self._pulse.load

    async def generate(self, request: Generation, step: Step) -> AsyncGenerator[Event, None]:
        """See `Engine.generate`; the engine drops the request when this iterator is closed."""
        with self._answering(step):
            adapter = self._required(request)
            prompt = await self._prompts.of(request)
            reader = ReplyReader(self.id, request, len(prompt))
            outputs = self._llm.generate(
                self._input(prompt),
                self._sampling(request, len(prompt)),
                self._new_id(),
                lora_request=adapter,
                trace_headers=_trace_headers(),
                priority=request.priority if self._scheduled else 0,
            )
            async with aclosing(outputs):
                async for output in outputs:
                    for event in reader.take(output):
                        yield event

    def _input(self, tokens: list[int]) -> TokensInput:
        """Tokens for a request that begins at once: raises MODEL_UNAVAILABLE while asleep.

        Nothing may be awaited from here until the engine has the request, and in this form of
        input vLLM does not either: what comes to an engine that sleeps would wait there for ever.
        """
        self._require_awake()
        return tokens_input(tokens)

    def _require_awake(self) -> None:
        if self._sleeper is not None:
            self._sleeper.require_awake()

    def _required(self, request: Generation) -> LoRARequest | None:
        """The adapter that is asked for; raises MODEL_LACKS_ABILITY."""
        if self.abilities.embeds:
            raise lacks(self.id, "text")
        if request.tool_choice:
            raise lacks(self.id, "tool_choice")
        if not request.lora_adapter:
            return None
        adapter = self._adapters.get(request.lora_adapter)
        if adapter is None:
            raise lacks(self.id, "lora_adapter")
        return adapter

    def _sampling(self, request: Generation, prompt_tokens: int) -> SamplingParams:
        room = self.abilities.context_length - prompt_tokens
        arguments = sampling_arguments(request, self._defaults, room)
        if schema := request.response_schema:
            structured = StructuredOutputsParams(**structured_arguments(schema))
            arguments["structured_outputs"] = structured
        return SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine.count_tokens`."""
        return await self._prompts.count(texts)

    async def embed(self, texts: Sequence[str], step: Step) -> list[Vector]:
        """See `Engine.embed`; the engine batches the texts, so many at once as it has slots."""
        if not self.abilities.embeds:
            raise lacks(self.id, "embed")
        with self._answering(step):
            return await all_of(self._vector(text) for text in texts)

    async def _vector(self, text: str) -> Vector:
        async with self._texts:
            tokens, cut = await self._prompts.of_text(text)
            return replace(await self._encoded(self._input(tokens)), truncated=cut)

    async def _encoded(self, tokens: TokensInput, priority: int = 0) -> Vector:
        outputs = self._llm.encode(
            tokens,
            PoolingParams(task="embed"),
            self._new_id(),
            trace_headers=_trace_headers(),
            priority=priority,
        )
        async with aclosing(outputs):
            async for output in outputs:
                vector = np.asarray(output.outputs.data.float().numpy(), "<f4")
        unit = vector / np.linalg.norm(vector)
        return Vector(unit.tobytes(), len(tokens["prompt_token_ids"]))

    async def sleep(self, level: SleepLevel) -> None:
        """See `Engine.sleep`."""
        if self._sleeper is None:
            raise lacks(self.id, "sleep")
        with self._told():
            await self._sleeper.sleep(level)

    async def wake(self) -> None:
        """See `Engine.wake`; an engine that did not wake up whole is given up."""
        if self._sleeper is None:
            raise lacks(self.id, "sleep")
        await self._sleeper.wake()

    async def warm_up(self) -> None:
        """Do once what takes long the first time: a request that waits for it would seem stuck."""
        await self._probe(logprobs=1)

    async def _probe(self, logprobs: int | None = None) -> Sequence[float]:
        """The tokens of a short greedy reply, or a vector; asked for before all that waits."""
        tokens, _ = await self._prompts.of_text(_PROBE_TEXT)
        prompt = tokens_input(tokens)
        priority = _BEFORE_ALL if self._scheduled else 0
        if self.abilities.embeds:
            vector = await self._encoded(prompt, priority)
            return [float(number) for number in np.frombuffer(vector.data, "<f4")]
        params = SamplingParams(
            temperature=0,
            max_tokens=_PROBE_TOKENS,
            logprobs=logprobs,
            ignore_eos=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        outputs = self._llm.generate(prompt, params, self._new_id(), priority=priority)
        return [token async for output in outputs for token in output.outputs[0].token_ids]

    async def close(self) -> None:
        """See `Engine.close`."""
        self._watch.cancel()
        self._prompts.close()
        self._llm.shutdown(timeout=0)
        self._llm = None  # or it shuts down again when the interpreter is half gone
        self._builder.shutdown(wait=False)

    def _new_id(self) -> str:
        return str(next(self._numbers))

    async def _keep_looking(self) -> None:
        """Tell when the engine core has ended, or is frozen: vLLM itself tells neither."""
        for look in itertools.count(1):
            await asyncio.sleep(_LOOK_S)
            if self._llm.errored:
                return self._gone("its engine core ended")
            if look % _LOOKS_A_PING == 0 and not await self._answers():
                return self._gone("its engine core makes no step")
        return None

    async def _answers(self) -> bool:
        """Whether the core answers what costs it nothing, between two steps."""
        try:
            await asyncio.wait_for(self._llm.is_sleeping(), STALL_LIMIT_S)
        except TimeoutError:
            # It is busy for as long as it takes to read weights again.
            return self._sleeper is not None and self._sleeper.turning
        except Exception:
            return bool(self._llm.errored)  # the next look tells that it ended
        return True

    @contextmanager
    def _answering(self, step: Step) -> Iterator[None]:
        """Surround a request, which feels the engine's steps."""
        self._require_awake()
        with self._told(), self._pulse.felt_by(step):
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What vLLM raises is told in our terms."""
        try:
            yield
        except AppError:
            raise
        except Exception as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> AppError:
        if isinstance(error, EngineDeadError):
            return away(self.id, "broke off: its engine ended")
        if isinstance(error, GracefulHTTPError):
            return overloaded(self.id)
        if isinstance(error, (VLLMClientError, ValueError)):
            return refused(self.id, "it is not what the engine understands")
        # Its kind alone: the text of an error may hold the prompt.
        cause = type(error.__cause__ or error).__name__
        get_logger().error("engine_request_failed", model=self.id, error=cause)
        return bad_response(self.id, "the engine failed")


def _trace_headers() -> dict[str, str]:
    """The current span in W3C's form: the engine's own span belongs below it."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
