"""Which models to try, in which order: the one asked for, ready language models, extractive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.routing.classify import default_tier
from services.routing.domain import Model, PromptMessage, QueryType, Role, Tier, TurnRequest
from services.runtime.errors import AppError, Reason

Allows = Callable[[str], bool]


@dataclass(frozen=True)
class Target:
    """A model to try and why it stands where it stands."""

    model: Model
    reason: str


def choose_targets(
    turn: TurnRequest, query_type: QueryType, models: Sequence[Model], allows: Allows
) -> list[Target]:
    """Return the targets of `turn` in order of trial; never empty.

    `allows` says whether a model's breaker lets a call through. Targets held back by a breaker
    are used only if nothing else is left. Raises NOT_FOUND for an unknown model,
    MODEL_LACKS_ABILITY if no model can do what is asked, MODEL_UNAVAILABLE if none is ready.
    """
    if turn.model and all(model.id != turn.model for model in models):
        raise AppError(Reason.NOT_FOUND, "no such model", metadata={"type": "model"})
    able = _able(turn, models)
    ready = [model for model in able if model.ready]
    open_ones = [model for model in ready if allows(model.id)]
    targets = [
        Target(model, _reason(turn, model))
        for model in sorted(open_ones or ready, key=lambda model: _rank(turn, query_type, model))
    ]
    if not targets:
        raise AppError(
            Reason.MODEL_UNAVAILABLE,
            "no model is ready",
            metadata={"model": turn.model},
            retry_after_s=1.0,
        )
    return targets


def choose_tier(turn: TurnRequest, query_type: QueryType, first_p95_s: float | None) -> Tier:
    """Return the tier: the client's, or the message's own, raised to what the first target can do.

    `first_p95_s` is the first target's p95 to first text; None if unknown or not generative.
    """
    if turn.tier is not Tier.UNSPECIFIED:
        return turn.tier
    tier = default_tier(query_type)
    if first_p95_s is None or first_p95_s <= 0.5 or tier is not Tier.INSTANT:
        return tier
    return Tier.FAST if first_p95_s <= 2.0 else Tier.STANDARD


def _able(turn: TurnRequest, models: Sequence[Model]) -> list[Model]:
    """Return the models that can do what the turn asks; an asked-for model must be among them."""
    asked = [model for model in models if model.id == turn.model]
    for ability in _needs(turn):
        models = [model for model in models if getattr(model, ability)]
        lacking = asked and asked[0] not in models
        if lacking or not models:
            raise AppError(
                Reason.MODEL_LACKS_ABILITY,
                f"{turn.model or 'no model of this mesh'} cannot do {ability}",
                metadata={"model": turn.model, "ability": ability},
            )
    return list(models)


def _needs(turn: TurnRequest) -> list[str]:
    needs = []
    if turn.tools or any(_of_a_tool(message) for message in turn.tool_messages):
        needs.append("tools")
    if turn.json_schema:
        needs.append("json_schema")
    return needs


def _of_a_tool(message: PromptMessage) -> bool:
    return message.role is Role.TOOL or bool(message.tool_calls)


def _rank(turn: TurnRequest, query_type: QueryType, model: Model) -> int:
    """Return the model's place: asked for, language model, quoting, small one asked of the past."""
    if model.id == turn.model:
        return 0
    if not model.generative:
        return 2
    return 3 if model.small and query_type is QueryType.RECALL else 1


def _reason(turn: TurnRequest, model: Model) -> str:
    if model.id == turn.model:
        return "asked for"
    if model.generative:
        return "a language model that is ready"
    return "answers from memory, without a language model"
