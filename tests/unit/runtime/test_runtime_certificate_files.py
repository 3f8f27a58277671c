"""Certificates as files: half replaced, swapped by Kubernetes, of no use, and when they end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.runtime.certificate_files import AUTHORITY, CERT, KEY, CertificateFiles, files_in
from services.runtime.certificates import new_authority
from services.runtime.errors import AppError
from services.runtime.settings import ServiceSettings
from services.runtime.watching import surroundings
from tests.support.certified import issued, lay, now


async def test_files_that_do_not_fit_together_are_not_taken(tmp_path: Path) -> None:
    """A new key is there before its certificate; what was good stays in use meanwhile."""
    authority = new_authority(now())
    first, second = issued(authority, "memory"), issued(authority, "memory")
    files = files_in(lay(tmp_path, first))
    assert files.fresh() is None
    (tmp_path / KEY).write_bytes(second.key)
    assert files.fresh() is None
    assert files.current == first
    (tmp_path / CERT).write_bytes(b"half of a certi")
    assert files.fresh() is None
    (tmp_path / CERT).unlink()
    assert files.fresh() is None
    lay(tmp_path, replace(second, authority=b""))
    assert files.fresh() is None
    lay(tmp_path, second)
    assert files.fresh() == second
    assert files.fresh() is None


def test_a_secret_that_kubernetes_swaps_is_taken_whole(tmp_path: Path) -> None:
    """There the files are links into a folder that is replaced in one step."""
    authority = new_authority(now())
    pems = [issued(authority, "memory") for _ in range(2)]
    for number, pem in enumerate(pems):
        lay(tmp_path / f"..{number}", pem)
    (tmp_path / "..data").symlink_to("..0")
    for name in (CERT, KEY, AUTHORITY):
        (tmp_path / name).symlink_to(Path("..data") / name)
    files = files_in(tmp_path)
    assert files.current == pems[0]
    (tmp_path / "..new").symlink_to("..1")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert files.fresh() == pems[1]


def _with(name: str, content: bytes | None) -> Any:
    """A change of one file."""

    def change(folder: Path) -> None:
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with(CERT, None), r"tls\.crt: No such file"),
        (_with(AUTHORITY, None), r"ca\.crt: No such file"),
        (_with(CERT, b"junk"), r"tls\.crt: holds no certificate"),
        (_with(KEY, b"junk"), r"tls\.key: holds no private key"),
        (_with(KEY, issued(new_authority(now()), "x").key), r"tls\.key: is not the key of"),
        (_with(AUTHORITY, b"junk"), r"ca\.crt: holds no certificate"),
        # With nobody to trust the server would ask nobody for a certificate.
        (_with(AUTHORITY, b""), r"ca\.crt: holds no certificate"),
    ],
)
def test_files_that_are_of_no_use_at_the_start_are_one_clear_error(
    tmp_path: Path, change: Any, said: str
) -> None:
    change(lay(tmp_path, issued(new_authority(now()), "memory")))
    with pytest.raises(AppError, match=said) as refused:
        files_in(tmp_path)
    assert "\n" not in refused.value.message


def test_the_end_of_each_listeners_certificate_is_a_metric(tmp_path: Path) -> None:
    authority = new_authority(now())
    mesh, public = issued(authority, "memory"), issued(authority, "memory")
    lay(tmp_path / "mesh", mesh)
    lay(tmp_path / "public", public)
    settings = ServiceSettings(
        data_dir=tmp_path,
        mesh_tls_dir=tmp_path / "mesh",
        public_tls_cert=tmp_path / "public" / CERT,
        public_tls_key=tmp_path / "public" / KEY,
    )
    found = _ends(settings)
    assert set(found) == {"mesh", "public"}
    left_s = [ends - now().timestamp() for ends in found.values()]
    assert all(0 < left <= timedelta(days=1).total_seconds() for left in left_s)


def _ends(settings: ServiceSettings) -> dict[str, float]:
    """When each listener's certificate ends, as the metric says."""
    return {
        sample.labels["listener"]: sample.value
        for metric in surroundings(settings)
        if metric.name == "echomesh_certificate_expires_timestamp_seconds"
        for sample in metric.samples
    }


def test_an_authority_that_ends_first_is_the_end_too(tmp_path: Path) -> None:
    """Unless the next one is trusted already."""
    ending, next_one = (new_authority(now(), timedelta(hours=hours)) for hours in (1, 3))
    settings = ServiceSettings(data_dir=tmp_path, mesh_tls_dir=tmp_path)
    pem = issued(ending, "memory")
    lay(tmp_path, pem)
    assert _ends(settings)["mesh"] == ending.certificate.not_valid_after_utc.timestamp()
    lay(tmp_path, replace(pem, authority=ending.cert_pem + next_one.cert_pem))
    assert _ends(settings)["mesh"] == next_one.certificate.not_valid_after_utc.timestamp()


def test_public_files_need_no_authority(tmp_path: Path) -> None:
    pem = issued(new_authority(now()), "memory")
    lay(tmp_path, pem)
    assert CertificateFiles(tmp_path / CERT, tmp_path / KEY).current == replace(pem, authority=b"")
