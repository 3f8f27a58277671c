"""Whatever fits the description, and much that does not, is answered without a defect."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tests.integrations.real_mesh import Gateway

# A turn is real work. The examples are the same in each run, so that CI tells of changes alone.
EXAMPLES = settings(
    max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
CHECKS: list[Any] = [not_a_server_error, status_code_conformance, response_schema_conformance]
OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/health"),
]


@pytest.fixture(scope="module")
def description(gateway: Gateway) -> Any:
    return schemathesis.openapi.from_url(f"{gateway.url}/openapi.json", wait_for_schema=30)


def test_every_path_of_the_description_is_tried(description: Any) -> None:
    described = [each.ok() for each in description.get_all_operations()]
    assert sorted((each.method.upper(), each.path) for each in described) == sorted(OPERATIONS)


# Without a body and without parameters there is nothing to get wrong.
WITH_INPUT = [each for each in OPERATIONS if each[0] == "POST" or "{" in each[1]]
WAYS = [(*each, GenerationMode.POSITIVE) for each in OPERATIONS]
WAYS += [(*each, GenerationMode.NEGATIVE) for each in WITH_INPUT]


@pytest.mark.parametrize(("method", "path", "mode"), WAYS)
def test_no_request_finds_a_defect(
    description: Any, gateway: Gateway, method: str, path: str, mode: GenerationMode
) -> None:
    strategy = description[path][method].as_strategy(generation_mode=mode)

    @EXAMPLES
    @given(case=strategy)
    def answered(case: schemathesis.Case) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {gateway.key}"}, timeout=60)
        case.validate_response(answer, checks=CHECKS)

    answered()
