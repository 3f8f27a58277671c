"""Log-probabilities in the Chat Completions format. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.models.domain import LikelyToken, TokenLogprob


def options(likeliest: int) -> dict[str, Any]:
    """Returns what a request says to be told the `likeliest` tokens of each place; 0 for none."""
    return {"logprobs": True, "top_logprobs": likeliest} if likeliest else {}


def places(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """Returns what one piece of a reply tells of its tokens.

    Raises:
        ValueError: it is not understood.

    """
    try:
        content = (choice.get("logprobs") or {}).get("content") or []
        return tuple(_place(entry) for entry in content)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("log-probabilities in another form") from error


def _place(entry: Mapping[str, Any]) -> TokenLogprob:
    others = (LikelyToken(*_token(other)) for other in entry.get("top_logprobs") or [])
    return TokenLogprob(*_token(entry), tuple(others))


def _token(entry: Mapping[str, Any]) -> tuple[str, float]:
    return str(entry["token"]), float(entry["logprob"])
