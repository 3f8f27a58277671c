"""The first keys of a mesh on Kubernetes: its set-up job runs at each upgrade and may fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from services.auth.commands import bootstrap_secret
from services.runtime.errors import AppError
from services.runtime.kube import Conflict, Secret
from tests.support.auth_world import auth_settings
from tests.support.kube_api import KubeApi, kube_api
from tests.support.postgres import FreshDatabase, TestDatabase

KEYS = ("api_key", "app_key")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """An API server with the empty Secret that the chart makes."""
    with kube_api(tmp_path / "account") as found:
        found.secrets["credentials"] = {}
        yield found


class Job:
    """The job's runs on one database."""

    def __init__(self, folder: Path, database: TestDatabase, api: KubeApi) -> None:
        self._settings = auth_settings(folder, database)
        self._secret = Secret("credentials", folder / "account", api.url)
        self._database = database

    async def run(self) -> None:
        await bootstrap_secret(self._settings, self._secret)

    async def sql(self, sql: str) -> list[asyncpg.Record]:
        """What a statement gives to the owner of the tables."""
        connection = await asyncpg.connect(self._database.admin_dsn)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    async def valid(self) -> int:
        """How many keys work."""
        return len(await self.sql("select from auth.api_keys where revoked_at is null"))


@pytest.fixture
async def job(tmp_path: Path, fresh_database: FreshDatabase, api: KubeApi) -> Job:
    return Job(tmp_path, await fresh_database("auth"), api)


async def test_a_revoked_first_key_does_not_come_back_with_an_upgrade(
    api: KubeApi, job: Job
) -> None:
    await job.run()
    before = dict(api.secrets["credentials"])
    await job.sql("update auth.api_keys set revoked_at = now()")
    await job.run()
    assert api.secrets["credentials"] == before
    assert await job.valid() == 0


async def test_keys_that_the_database_never_knew_are_made_anew(api: KubeApi, job: Job) -> None:
    """The Secret stays on uninstall, but the database may be another one."""
    await job.run()
    before = dict(api.secrets["credentials"])
    await job.sql("truncate auth.api_keys cascade")
    await job.run()
    assert all(api.secrets["credentials"][key] != before[key] for key in KEYS)
    assert await job.valid() == len(KEYS)


async def test_a_job_that_cannot_keep_the_keys_leaves_none_that_work(
    api: KubeApi, job: Job
) -> None:
    """Else each of its tries would leave another administrator's key."""
    api.race = {"note": b"somebody else's"}
    with pytest.raises(Conflict):
        await job.run()
    assert await job.valid() == 0
    await job.run()
    assert await job.valid() == len(KEYS)


async def test_keys_whose_keeping_went_unanswered_go_on_working(api: KubeApi, job: Job) -> None:
    api.lose_answer = True
    with pytest.raises(AppError, match="504"):
        await job.run()
    kept = dict(api.secrets["credentials"])
    await job.run()
    assert api.secrets["credentials"] == kept
    assert await job.valid() == len(KEYS)
