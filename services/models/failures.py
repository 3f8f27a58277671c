"""The errors of a model, whatever engine runs it. All name the model in their metadata."""

from __future__ import annotations

from services.runtime.errors import AppError, Reason

RETRY_AFTER_S = 1.0


def away(model: str, what: str) -> AppError:
    """Return MODEL_UNAVAILABLE: another try, or another model, may succeed."""
    return AppError(
        Reason.MODEL_UNAVAILABLE,
        f"{model} {what}",
        metadata={"model": model},
        retry_after_s=RETRY_AFTER_S,
    )


def overloaded(model: str) -> AppError:
    """Return OVERLOADED: there is no place for it now."""
    return AppError(
        Reason.OVERLOADED,
        f"too many {model} at once; try again later",
        metadata={"queue": model},
        retry_after_s=RETRY_AFTER_S,
    )


def bad_response(model: str, what: str) -> AppError:
    """Return MODEL_BAD_RESPONSE: what came is no answer."""
    return AppError(
        Reason.MODEL_BAD_RESPONSE,
        f"{model} gave no answer: {what}",
        metadata={"model": model},
        retry_after_s=RETRY_AFTER_S,
    )


def too_long(model: str) -> AppError:
    """Return CONTEXT_TOO_LONG: the prompt does not fit."""
    return AppError(
        Reason.CONTEXT_TOO_LONG, f"the prompt does not fit {model}", metadata={"model": model}
    )


def refused(model: str, why: str) -> AppError:
    """Return MODEL_REFUSED: the same request would be refused again."""
    return AppError(
        Reason.MODEL_REFUSED,
        f"{model} refused the request: {why}",
        metadata={"model": model},
    )


def lacks(model: str, ability: str) -> AppError:
    """Return MODEL_LACKS_ABILITY: another model may be able to."""
    return AppError(
        Reason.MODEL_LACKS_ABILITY,
        f"{model} cannot do what the request asks: {ability}",
        metadata={"model": model, "ability": ability},
    )
