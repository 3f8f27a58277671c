"""How a request's tokens are chosen, as arguments of vLLM's `SamplingParams`. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.models.domain import Generation

_LEAST_TOP_P = 1e-6
"""Leaves the likeliest token alone, as 0 does in the contract; vLLM refuses 0."""


def sampling_arguments(
    request: Generation, defaults: Mapping[str, Any], room: int
) -> dict[str, Any]:
    """Return the arguments, those of structured output excepted.

    Args:
        request: what is asked for.
        defaults: what the model's own files recommend, by the same names.
        room: tokens that fit behind the prompt.

    """
    sampling = request.sampling
    asked = {
        "temperature": sampling.temperature,
        "top_p": None if sampling.top_p is None else max(sampling.top_p, _LEAST_TOP_P),
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "logprobs": request.logprobs or None,
    }
    wanted = sampling.max_tokens or defaults.get("max_tokens") or room
    return {
        **defaults,
        **{name: value for name, value in asked.items() if value is not None},
        "max_tokens": min(wanted, room),
        # Where a call's marks are special tokens they must stay in the text to be found.
        "skip_special_tokens": not request.tools,
    }


def structured_arguments(schema: str) -> dict[str, Any]:
    """Return the arguments of `StructuredOutputsParams`; "{}" means any JSON object."""
    parsed = json.loads(schema)
    return {"json": parsed} if parsed else {"json_object": True}
