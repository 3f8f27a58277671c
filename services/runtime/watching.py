"""What a process tells of its surroundings: its disk, its certificate, and the parts it reaches."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography import x509
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.runtime.certificate_files import AUTHORITY, CERT
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
    """The room on the disk of the data folder, and when the listeners' certificates end."""
    yield from _disk(settings.data_dir)
    yield from _certificates(settings)


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


def _certificates(settings: ServiceSettings) -> Iterable[Metric]:
    """When nobody new can connect to a listener any more; nothing where no file can be read."""
    expires = GaugeMetricFamily(
        "echomesh_certificate_expires_timestamp_seconds",
        "When a listener's certificate ends, since the epoch.",
        labels=("listener",),
    )
    if settings.public_tls_cert and (chain := _ends(settings.public_tls_cert)):
        expires.add_metric(("public",), min(chain))
    folder = settings.mesh_tls_dir
    if folder and (chain := _ends(folder / CERT)):
        # Of the authorities the last one counts: while they change, there are the old and the new.
        expires.add_metric(("mesh",), min(*chain, max(_ends(folder / AUTHORITY), default=math.inf)))
    if expires.samples:
        yield expires


def _ends(path: Path) -> list[float]:
    """When each certificate of a file ends, in seconds since 1970."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []
    return [each.not_valid_after_utc.timestamp() for each in found]
