"""Collections in one folder, each a qdrant-edge shard: what the server serves.

A collection is made beside its place and moved there when it is whole, so that a kill leaves all of
it or nothing. Every update is in the write-ahead log when the call returns.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import grpc
import qdrant_edge as edge


class RefusedError(Exception):
    """What a Qdrant server answers instead of a result."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Collections:
    """All collections of a folder; one process at a time, one call at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in folder.glob(".*"):
            shutil.rmtree(unfinished)
        self._shards = {path.name: edge.EdgeShard.load(str(path)) for path in folder.iterdir()}

    def names(self) -> list[str]:
        """Return the names of all collections."""
        return sorted(self._shards)

    def exists(self, name: str) -> bool:
        """Whether there is such a collection."""
        return name in self._shards

    def create(self, name: str, config: Any) -> None:
        """Make an empty collection; refused if there is one of this name."""
        if name in self._shards:
            text = f"Wrong input: Collection `{name}` already exists!"
            raise RefusedError(grpc.StatusCode.ALREADY_EXISTS, text)
        if not name or not name.replace("_", "").replace("-", "").isalnum():
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "Wrong input: collection name")
        beside = self._folder / f".{name}"
        beside.mkdir(mode=0o700)
        made = edge.EdgeShard.create(str(beside), config)
        made.flush()
        made.close()
        place = beside.rename(self._folder / name)
        self._shards[name] = edge.EdgeShard.load(str(place))

    def delete(self, name: str) -> bool:
        """Drop a collection; false if there was none."""
        shard = self._shards.pop(name, None)
        if shard is None:
            return False
        shard.close()
        gone = (self._folder / name).rename(self._folder / f".{name}")
        shutil.rmtree(gone)
        return True

    def shard(self, name: str) -> Any:
        """Return a collection's shard; refused if there is no such collection."""
        if name not in self._shards:
            text = f"Not found: Collection `{name}` doesn't exist!"
            raise RefusedError(grpc.StatusCode.NOT_FOUND, text)
        return self._shards[name]

    def close(self) -> None:
        """Flush everything and let go of the folder."""
        for shard in self._shards.values():
            shard.flush()
            shard.close()
        self._shards.clear()
