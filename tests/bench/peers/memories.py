"""Peer memories: mem0's open-source package, and a plain vector memory, on the same weights.

Requests: {"op": "add", "user": ..., "items": [{"id": ..., "text": ...}]} and
{"op": "search", "user": ..., "query": ..., "limit": ...}; answers carry the seconds they took.
mem0 runs with `infer=False`: nothing but the texts is kept, for there is no language model here to
extract facts with; its vectors lie in Qdrant's local mode, as it does by default.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Memories(Protocol):
    """What a peer can do."""

    def add(self, user: str, items: Sequence[dict[str, str]]) -> None:
        """Keep texts under their ids."""

    def search(self, user: str, query: str, limit: int) -> list[str]:
        """Return the ids of the best, best first."""


class PlainVectors:
    """Vectors in an array, compared exactly."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(model, device="cpu")
        self._ids: dict[str, list[str]] = defaultdict(list)
        self._vectors: dict[str, Any] = {}

    def add(self, user: str, items: Sequence[dict[str, str]]) -> None:
        """Keep texts under their ids."""
        fresh = self._embed([item["text"] for item in items])
        known = self._vectors.get(user)
        self._vectors[user] = fresh if known is None else np.concatenate([known, fresh])
        self._ids[user] += [item["id"] for item in items]

    def search(self, user: str, query: str, limit: int) -> list[str]:
        """Return the ids of the best, best first."""
        scores = self._vectors[user] @ self._embed([query])[0]
        return [self._ids[user][place] for place in np.argsort(-scores)[:limit]]

    def _embed(self, texts: list[str]) -> Any:
        return self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


class Mem0:
    """mem0 with a local embedder and a local store."""

    def __init__(self, model: str, folder: str) -> None:
        # Its language model is made when it starts, though nothing here asks it anything.
        os.environ.setdefault("OPENAI_API_KEY", "unused")
        os.environ["MEM0_DIR"] = folder
        from mem0 import Memory

        store = {"path": f"{folder}/qdrant", "embedding_model_dims": 384, "on_disk": True}
        self._memory = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "embedder": {"provider": "huggingface", "config": {"model": model}},
                "history_db_path": f"{folder}/history.db",
            }
        )

    def add(self, user: str, items: Sequence[dict[str, str]]) -> None:
        """Keep texts under their ids; it takes them one by one."""
        for item in items:
            message = [{"role": "user", "content": item["text"]}]
            self._memory.add(message, user_id=user, metadata={"turn": item["id"]}, infer=False)

    def search(self, user: str, query: str, limit: int) -> list[str]:
        """Return the ids of the best, best first."""
        found = self._memory.search(query, top_k=limit, filters={"user_id": user}, threshold=0.0)
        return [hit["metadata"]["turn"] for hit in found["results"]]


def main() -> None:
    """Serve requests, a line each, until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("mem0", "plain"), required=True)
    parser.add_argument("--model", required=True)
    given = parser.parse_args()
    # Packages talk on standard output; the answers keep it to themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        peer: Memories
        peer = PlainVectors(given.model) if given.kind == "plain" else Mem0(given.model, folder)
        for line in sys.stdin:
            request = json.loads(line)
            began = time.perf_counter()
            if request["op"] == "add":
                peer.add(request["user"], request["items"])
                ids = []
            else:
                ids = peer.search(request["user"], request["query"], request["limit"])
            answer = {"ids": ids, "seconds": time.perf_counter() - began}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
