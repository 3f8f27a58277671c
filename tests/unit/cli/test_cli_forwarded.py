"""A mesh that is reached at a loopback address: all its services are looked for there."""

from __future__ import annotations

from typing import Any

import pytest

from services.cli import connect


@pytest.mark.parametrize(
    ("address", "forwarded"),
    [("127.0.0.1:7400", True), ("localhost:7400", True), ("mesh.example.com:443", False)],
)
def test_the_ports_of_a_loopback_address_count_as_forwarded(
    monkeypatch: pytest.MonkeyPatch, address: str, forwarded: bool
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setenv(connect.KEY_VARIABLE, "k")
    monkeypatch.setattr(connect, "Client", lambda where, **options: given.update(options))
    connect.Place(address=address).client()
    assert given["forwarded"] is forwarded
