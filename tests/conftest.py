"""Fixtures that several kinds of test share."""

import gc

pytest_plugins = ["tests.support.postgres", "tests.support.pooled"]


def pytest_collection_finish() -> None:
    """Leave what was loaded out of later garbage collections.

    One took half a second of the event loop, in the middle of tests with limits of a second.
    """
    gc.collect()
    gc.freeze()
