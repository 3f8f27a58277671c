"""One real mesh, shared by the tests that talk to its gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integrations.real_mesh import Gateway, running_mesh, scripted_model


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of a whole mesh, shared."""
    data = tmp_path_factory.mktemp("integrations") / "data"
    with scripted_model() as model, running_mesh(data, model.url) as url:
        key = json.loads((data / "credentials.json").read_text())["api_key"]
        yield Gateway(url, key, model)
