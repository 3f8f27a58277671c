"""What a process tells of its surroundings, and how numbers lead to traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry import trace
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest

from services.runtime.health import reached
from services.runtime.metrics import REGISTRY, at_scrape, counter, exemplar, histogram
from services.runtime.settings import ServiceSettings
from services.runtime.telemetry import IdTracer
from services.runtime.watching import surroundings

ENDS = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


def certificate(ends: datetime) -> bytes:
    """A certificate that ends at a time, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh.example")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def told(settings: ServiceSettings) -> dict[str, float]:
    """The surroundings' values by the name of the metric."""
    return {m.name: m.samples[0].value for m in surroundings(settings) if m.samples}


def test_the_first_certificate_of_a_chain_to_end_is_told(tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificate(ENDS + timedelta(days=300)) + certificate(ENDS))
    settings = ServiceSettings(data_dir=tmp_path, public_tls_cert=chain)
    name = "echomesh_certificate_expires_timestamp_seconds"
    assert told(settings)[name] == ENDS.timestamp()
    chain.write_text("half written")
    assert name not in told(settings)


def test_the_room_on_the_data_folders_disk_is_told_once_there_is_one(tmp_path: Path) -> None:
    found = told(ServiceSettings(data_dir=tmp_path))
    assert 0 < found["echomesh_disk_free_bytes"] <= found["echomesh_disk_size_bytes"]
    assert told(ServiceSettings(data_dir=tmp_path / "not yet")) == {}


async def test_what_is_reached_is_looked_at_one_by_one() -> None:
    async def well() -> bool:
        return True

    async def broken() -> bool:
        raise RuntimeError("its password is wrong")

    assert await reached({"index": well, "postgres": broken}) == {"index": True, "postgres": False}


@pytest.fixture
def shown() -> Iterator[Callable[[], str]]:
    """A metric that is read at each scrape, and what a scraper of OpenMetrics is shown."""
    value = iter(range(1, 100))
    gauge = "echomesh_test_asked"

    def read() -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(gauge, "A test's own.", value=next(value))]

    end = at_scrape(read)
    yield lambda: generate_latest(REGISTRY).decode()
    end()
    assert gauge not in generate_latest(REGISTRY).decode()


def test_what_is_read_at_a_scrape_is_as_new_as_the_scrape(shown: Callable[[], str]) -> None:
    assert "echomesh_test_asked 1" in shown()
    assert "echomesh_test_asked 2" in shown()


def test_a_number_leads_to_a_trace_behind_it_where_there_is_one() -> None:
    """Exemplars: beside the counter, and beside the one bucket that the value fell into."""
    with IdTracer().start_as_current_span("call") as span:
        counter("echomesh_test_calls_total", "A test's own.").inc(exemplar=exemplar())
        histogram("echomesh_test_seconds", "A test's own.").observe(0.2, exemplar(span))
    trace_id = format(span.get_span_context().trace_id, "032x")
    lines = [line for line in generate_latest(REGISTRY).decode().splitlines() if trace_id in line]
    assert [line.split()[0] for line in lines] == [
        "echomesh_test_calls_total",
        'echomesh_test_seconds_bucket{le="0.25"}',
    ]
    assert exemplar(trace.INVALID_SPAN) is None
