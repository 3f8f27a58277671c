"""What a process tells of its surroundings: its disk, its certificate, and the parts it reaches."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography import x509
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.runtime.health import Dependency, reached
from services.runtime.metrics import gauge
from services.runtime.settings import ServiceSettings

# Often enough that a part that is away shows within a scrape or two.
LOOK_S = 10.0

_REACHED = gauge(
    "echomesh_dependency_reached", "1 while a part that is needed is reached.", ("dependency",)
)


async def watch_dependencies(dependencies: Mapping[str, Dependency]) -> None:
    """Look every few seconds what is reached, until cancelled."""
    while True:
        for name, well in (await reached(dependencies)).items():
            _REACHED.labels(name).set(float(well))
        await asyncio.sleep(LOOK_S)


def surroundings(settings: ServiceSettings) -> Iterable[Metric]:
    """The room on the disk of the data folder, and when the public certificate ends."""
    yield from _disk(settings.data_dir)
    if settings.public_tls_cert is not None:
        yield from _certificate(settings.public_tls_cert)


def _disk(folder: Path) -> Iterable[Metric]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return  # it is made later, or gone: then there is nothing to tell
    size = GaugeMetricFamily(
        "echomesh_disk_size_bytes", "Size of the disk that a folder lies on.", labels=("folder",)
    )
    free = GaugeMetricFamily(
        "echomesh_disk_free_bytes", "What is free of it for this process.", labels=("folder",)
    )
    size.add_metric(("data",), usage.used + usage.free)
    free.add_metric(("data",), usage.free)
    yield from (size, free)


def _certificate(path: Path) -> Iterable[Metric]:
    """The end of the first certificate of a chain to end; nothing if it cannot be read."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return
    expires = GaugeMetricFamily(
        "echomesh_certificate_expires_timestamp_seconds",
        "When a listener's certificate ends, since the epoch.",
        labels=("listener",),
    )
    ends = min(certificate.not_valid_after_utc for certificate in chain)
    expires.add_metric(("public",), ends.timestamp())
    yield expires
