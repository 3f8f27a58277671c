"""What our engine uses of vLLM, as a double: for where vLLM is not, and for what it rarely does.

Its tokens are words, and a text's vector says how long the text is.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

BROKEN = "no text at all"
"""A text that the double fails with."""


class GracefulHTTPError(Exception):
    """There are more requests than may wait."""


class VLLMClientError(Exception):
    """A request is wrong."""


class EngineDeadError(Exception):
    """The engine core has ended."""


class RequestOutputKind(Enum):
    """Whether outputs hold what is new, or come once."""

    DELTA = 1
    FINAL_ONLY = 2


def install(patch: pytest.MonkeyPatch) -> None:
    """Let `import vllm` find the double."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"PoolingParams": SimpleNamespace, "SamplingParams": SimpleNamespace},
        "vllm.exceptions": {
            "GracefulHTTPError": GracefulHTTPError,
            "VLLMClientError": VLLMClientError,
        },
        "vllm.inputs": {
            "TokensInput": dict,
            "tokens_input": lambda ids: {"type": "token", "prompt_token_ids": ids},
        },
        "vllm.lora.request": {"LoRARequest": SimpleNamespace},
        "vllm.sampling_params": {
            "RequestOutputKind": RequestOutputKind,
            "StructuredOutputsParams": SimpleNamespace,
        },
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        patch.setitem(sys.modules, name, module)


class Words:
    """A tokenizer; it waits before it reads while `free` is not set."""

    chat_template = "{{ messages }}"

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.begun = 0

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        """The last message."""
        return str(messages[-1]["content"])

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> list[int]:
        """The length of each word."""
        self.begun += 1
        assert self.free.wait(60)
        lengths = [0] if text == BROKEN else [len(word) for word in text.split()]
        return lengths[:max_length] if truncation else lengths


class LlmDouble:
    """An `AsyncLLM`; `pooling` makes vectors alone, as vLLM's do.

    `priorities` are those of the requests that came, `full` refuses them, `free` holds them back,
    `ended_early` counts those that were given up before that.
    """

    def __init__(self, *, pooling: bool = False, context: int = 64) -> None:
        self.model_config = SimpleNamespace(
            max_model_len=context, get_diff_sampling_param=dict[str, Any]
        )
        self.words = Words()
        self.errored = False
        self.full = False
        self.free = asyncio.Event()
        self.free.set()
        self.priorities: list[int] = []
        self.told: list[str] = []
        self.changed = 0
        self.running = self.most_running = self.ended_early = 0
        self.sign_of_life: Exception | None = None
        self._pooling = pooling

    def get_tokenizer(self) -> Words:
        """Its tokenizer."""
        return self.words

    async def generate(
        self, prompt: dict[str, Any], params: Any, request_id: str, **more: Any
    ) -> AsyncGenerator[Any, None]:
        """One output with all that there is."""
        if self._pooling:
            raise ValueError("this model makes vectors")
        await self._worked_on(prompt, more)
        part = SimpleNamespace(
            text="yes", token_ids=[1, 2, 3 + self.changed], logprobs=None, finish_reason="stop"
        )
        yield SimpleNamespace(num_cached_tokens=0, outputs=[part])

    async def encode(
        self, prompt: dict[str, Any], params: Any, request_id: str, **more: Any
    ) -> AsyncGenerator[Any, None]:
        """A text's vector."""
        await self._worked_on(prompt, more)
        tokens = prompt["prompt_token_ids"]
        if tokens == [0]:
            raise VLLMClientError("no text")
        vector = np.asarray([len(tokens), 1 + self.changed], "<f4")
        data = SimpleNamespace(float=lambda: SimpleNamespace(numpy=lambda: vector))
        yield SimpleNamespace(outputs=SimpleNamespace(data=data))

    async def _worked_on(self, prompt: dict[str, Any], more: dict[str, Any]) -> None:
        assert prompt["type"] == "token"
        if self.full:
            raise GracefulHTTPError
        self.priorities.append(more["priority"])
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            if prompt["prompt_token_ids"] != [0]:
                await self.free.wait()
        except asyncio.CancelledError:
            self.ended_early += 1
            raise
        finally:
            self.running -= 1

    async def sleep(self, level: int = 1) -> None:
        """Be told to sleep."""
        self.told.append(f"sleep {level}")

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Be told to wake up."""
        self.told.append("wake")

    async def collective_rpc(self, method: str) -> None:
        """Be told to call a method everywhere."""
        self.told.append(method)

    async def is_sleeping(self) -> bool:
        """Give a sign of life."""
        if self.sign_of_life is not None:
            raise self.sign_of_life
        return False

    def shutdown(self, timeout: float) -> None:
        """End."""
