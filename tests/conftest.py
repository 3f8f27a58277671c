"""Fixtures that several kinds of test share."""

import gc
from typing import Any

import pytest

_WHOLE_MESHES = "tests/e2e/"

pytest_plugins = ["tests.support.postgres", "tests.support.pooled"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests on one worker, and all tests of whole meshes on one of them.

    These mostly wait. Two meshes at once would starve each other, and what is starved counts as
    frozen.
    """
    from xdist.scheduler import LoadFileScheduling

    class OneMesh(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return _WHOLE_MESHES if file.startswith(_WHOLE_MESHES) else str(file)

    return OneMesh(config, log)


def pytest_collection_finish() -> None:
    """Leave what was loaded out of later garbage collections.

    One took half a second of the event loop, in the middle of tests with limits of a second.
    """
    gc.collect()
    gc.freeze()
