"""A real Jaeger, and a mesh that sends it spans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.jaeger import Jaeger, binary, named, running_jaeger
from tests.support.mesh import running_mesh
from tests.support.traced import Traced, application_spans

_NONE = (
    "set ECHOMESH_JAEGER_OTLP and ECHOMESH_JAEGER_QUERY to a Jaeger's addresses, or "
    "ECHOMESH_JAEGER_BINARY to its program"
)


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """The Jaeger that settings name, or one of our own."""
    found, program = named(), binary()
    if found is not None:
        yield found
    elif program is not None:
        with running_jaeger(program, tmp_path_factory.mktemp("jaeger")) as started:
            yield started
    else:
        pytest.skip(_NONE)


@pytest.fixture(scope="session")
def traced(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A mesh whose spans, and those of the application that calls it, go to Jaeger."""
    env = {"ECHOMESH_OTLP_ENDPOINT": jaeger.otlp, "ECHOMESH_ROUTING_TRACES_URL": jaeger.query}
    folder = tmp_path_factory.mktemp("mesh") / "data"
    with application_spans(jaeger.otlp) as tracer, running_mesh(folder, env=env) as mesh:
        yield Traced(mesh, tracer)
