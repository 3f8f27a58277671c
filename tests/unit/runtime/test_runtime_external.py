"""An administrator's address of a Postgres that somebody else runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.runtime.external import ExternalPostgres
from services.runtime.pgbinaries import PostgresUnavailable


@pytest.mark.parametrize(
    ("given", "used"),
    [
        # As CloudNativePG's Secret of the superuser has it.
        ("postgresql://u:p@db.ns:5432/*", "postgresql://u:p@db.ns:5432/postgres"),
        ("postgresql://u:p@db:5432", "postgresql://u:p@db:5432/postgres"),
        ("postgres://u@a,b/?sslmode=require", "postgres://u@a,b/postgres?sslmode=require"),
        ("postgresql://u:p@db/mine", "postgresql://u:p@db/mine"),
        ("postgresql://u:p@db/?dbname=mine", "postgresql://u:p@db/?dbname=mine"),
        ("postgresql:///?host=/run/db", "postgresql:///?host=/run/db"),
    ],
)
async def test_the_administrator_connects_to_a_database_that_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, used: str
) -> None:
    asked: list[str] = []

    async def connect(dsn: str, **_: Any) -> None:
        asked.append(dsn)
        raise OSError("nobody is there")

    monkeypatch.setattr(asyncpg, "connect", connect)
    with pytest.raises(PostgresUnavailable, match="nobody is there"):
        await ExternalPostgres(given, tmp_path).start()
    assert asked == [used]
