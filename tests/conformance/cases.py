"""The list of cases: a coroutine each, whose name and docstring say what must hold."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.world import Case

CaseFunction = Callable[[Case], Awaitable[None]]
CASES: dict[str, CaseFunction] = {}
# Those that wait the longest come first: they are begun first, and the others meanwhile.
_MODULES = (
    "tokens",
    "replicas",
    "errors",
    "chats",
    "tls",
    "retries",
    "entering",
    "memories",
    "conversations",
)


def case(function: CaseFunction) -> CaseFunction:
    """Put a coroutine on the list."""
    assert function.__name__ not in CASES, f"two cases are called {function.__name__}"
    CASES[function.__name__] = function
    return function


def all_cases() -> dict[str, CaseFunction]:
    """Every case there is, by name."""
    modules = [f"tests.conformance.cases_{name}" for name in _MODULES]
    pytest.register_assert_rewrite(*modules)
    for module in modules:
        importlib.import_module(module)
    return CASES
