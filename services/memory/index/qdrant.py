"""The index on a Qdrant server, by URL: production's implementation, any number of replicas.

The local mode of qdrant-client (``:memory:``) stands in for a server in tests. The query's sparse
vector carries our own IDF and the collection has no modifier: a server may silently ignore an IDF
over one user's points, and weighting the query works with all of them.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from services.memory.index.failures import index_failed
from services.memory.index.payload import (
    DENSE,
    FORMAT,
    KEYWORD_FIELDS,
    SPARSE,
    TIME_FIELD,
    USER_FIELD,
    Between,
    Condition,
    conditions,
    payload_of,
)
from services.memory.index.types import NO_FILTER, IndexEntry, IndexHit, IndexPoint
from services.memory.recall.filters import MemoryFilter
from services.memory.recall.types import SparseVector
from services.runtime.errors import unavailable

REQUEST_LIMIT_S = 10
"""Past this a server counts as away; recall then goes on with keywords from Postgres."""

HTTP_PORT, GRPC_PORT = 6333, 6334
"""Qdrant's own choice."""

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
"""A server that is frozen or cut off fails calls at once after three seconds, instead of each call
waiting out its time, and is tried again every second. The odd one of them is how long connecting
may take: four exchanges with TLS, on a slow network."""

MARKER_ID = str(uuid.UUID(int=0))
"""The point that belongs to nobody and holds the collection's generation."""

EXACT = models.SearchParams(exact=True)
"""A user's points are few enough to compare all: there is no graph to be wrong."""


class QdrantIndex:
    """A :class:`VectorIndex` over one collection of a Qdrant server.

    Args:
        client: A client that this index owns from now on; make it with ``prefer_grpc=True``.
        collection: The start of the collection's name. Points of another shape or with vectors of
            another length get a collection of their own, which the service then fills.
        dimensions: Of the dense vectors.

    """

    def __init__(self, client: AsyncQdrantClient, collection: str, dimensions: int) -> None:
        self._client = client
        self._collection = f"{collection}_v{FORMAT}_{dimensions}"
        self._dimensions = dimensions
        self._prepared = False

    async def upsert(self, points: Sequence[IndexPoint]) -> None:
        """See :class:`VectorIndex`."""
        if not points:
            return
        async with self._ready() as client:
            structs = [_to_struct(point) for point in points]
            _require_done(await client.upsert(self._collection, structs, wait=True))

    async def delete(self, tenant_id: str, user_id: str, memory_ids: Sequence[str]) -> None:
        """See :class:`VectorIndex`."""
        owner = _clauses(conditions(tenant_id, user_id, NO_FILTER))
        if not memory_ids:
            return
        which = models.Filter(must=[*owner, models.HasIdCondition(has_id=list(memory_ids))])
        async with self._ready() as client:
            selector = models.FilterSelector(filter=which)
            _require_done(await client.delete(self._collection, selector, wait=True))

    async def search_dense(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """See :class:`VectorIndex`."""
        where = conditions(tenant_id, user_id, filters)
        return await self._search([float(x) for x in vector], DENSE, where, limit)

    async def search_sparse(
        self,
        tenant_id: str,
        user_id: str,
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """See :class:`VectorIndex`."""
        where = conditions(tenant_id, user_id, filters)
        if not sparse.indices:
            return []
        hits = await self._search(_sparse(sparse), SPARSE, where, limit)
        return [hit for hit in hits if hit.score > 0]

    async def search_both(
        self,
        tenant_id: str,
        user_id: str,
        vector: Sequence[float],
        sparse: SparseVector,
        limit: int,
        filters: MemoryFilter = NO_FILTER,
    ) -> list[IndexHit]:
        """See :class:`VectorIndex`; two calls at once."""
        found = await asyncio.gather(
            self.search_dense(tenant_id, user_id, vector, limit, filters),
            self.search_sparse(tenant_id, user_id, sparse, limit, filters),
        )
        return [hit for hits in found for hit in hits]

    async def scroll(
        self, tenant_id: str, user_id: str, after: str | None, limit: int
    ) -> list[IndexEntry]:
        """See :class:`VectorIndex`."""
        where = _filter(conditions(tenant_id, user_id, NO_FILTER))
        async with self._ready() as client:
            records, _ = await client.scroll(
                self._collection, where, limit + 1, offset=after, with_payload=["version"]
            )
        found = (IndexEntry(str(record.id), _version(record.payload)) for record in records)
        return [entry for entry in found if entry.memory_id != after][:limit]

    async def count(self, tenant_id: str, user_id: str) -> int:
        """See :class:`VectorIndex`."""
        where = _filter(conditions(tenant_id, user_id, NO_FILTER))
        async with self._ready() as client:
            return int((await client.count(self._collection, where, exact=True)).count)

    async def generation(self) -> str:
        """See :class:`VectorIndex`."""
        async with self._ready() as client:
            found = await client.retrieve(self._collection, [MARKER_ID], with_payload=True)
            if not found:
                self._prepared = False
                raise unavailable("index")
            return str((found[0].payload or {})["generation"])

    async def drop(self) -> None:
        """Delete the collection with everything in it; the next use makes it anew."""
        self._prepared = False
        await self._client.delete_collection(self._collection)

    async def close(self) -> None:
        """See :class:`VectorIndex`."""
        await self._client.close()

    async def _search(
        self, query: Any, using: str, where: Sequence[Condition], limit: int
    ) -> list[IndexHit]:
        async with self._ready() as client:
            answer = await client.query_points(
                self._collection,
                query=query,
                using=using,
                query_filter=_filter(where),
                search_params=EXACT,
                limit=limit,
                with_payload=["version"],
            )
        return [IndexHit(str(p.id), _version(p.payload), p.score) for p in answer.points]

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[AsyncQdrantClient]:
        """Lend the client once the collection stands; a failing server is UNAVAILABLE."""
        try:
            if not self._prepared:
                await self._prepare()
                self._prepared = True
            yield self._client
        except grpc.RpcError as error:
            self._prepared = False
            raise index_failed(error) from error
        except (ApiException, QdrantException, OSError) as error:
            self._prepared = False
            raise unavailable("index") from error

    async def _prepare(self) -> None:
        """Make what is missing of the collection.

        The marker comes last, so a collection that has it is whole; one that was left half made,
        or that another replica makes just now, is gone through again.
        """
        if not await self._client.collection_exists(self._collection):
            await self._create()
        elif await self._client.retrieve(self._collection, [MARKER_ID]):
            return
        await self._index_fields()
        payload = {"generation": str(uuid.uuid4())}
        marker = models.PointStruct(id=MARKER_ID, vector={}, payload=payload)
        await self._client.upsert(self._collection, [marker], wait=True)

    async def _create(self) -> None:
        dense = models.VectorParams(
            size=self._dimensions,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
        )
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config={DENSE: dense},
                sparse_vectors_config={SPARSE: models.SparseVectorParams()},
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=0),
            )
        except grpc.RpcError:
            # Another replica was faster; servers of different age say so with different codes.
            if not await self._client.collection_exists(self._collection):
                raise

    async def _index_fields(self) -> None:
        keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
        for field in KEYWORD_FIELDS:
            await self._client.create_payload_index(self._collection, field, keyword)
        user = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await self._client.create_payload_index(self._collection, USER_FIELD, user)
        integer = models.IntegerIndexType.INTEGER
        time = models.IntegerIndexParams(type=integer, lookup=False, range=True)
        await self._client.create_payload_index(self._collection, TIME_FIELD, time)


def qdrant_client(url: str, api_key: str | None = None) -> AsyncQdrantClient:
    """Return a client over gRPC.

    Args:
        url: The server's address, such as ``http://qdrant:6334``; ``https`` means TLS. The port is
            gRPC's; Qdrant's HTTP port 6333, which most people write down, means the gRPC port
            beside it.
        api_key: The server's key, if it wants one.

    Raises:
        ValueError: If ``url`` is no URL of a server.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a Qdrant server's URL looks like http://qdrant:6334")
    port = GRPC_PORT if parts.port in (None, HTTP_PORT) else parts.port
    return AsyncQdrantClient(
        url=url,
        grpc_port=port,
        api_key=api_key,
        prefer_grpc=True,
        timeout=REQUEST_LIMIT_S,
        check_compatibility=False,
        grpc_options=dict(KEEPALIVE),
    )


def _require_done(result: models.UpdateResult) -> None:
    """A write that is only accepted is not found yet: it counts as not done, and is done again."""
    if result.status is not models.UpdateStatus.COMPLETED:
        raise unavailable("index")


def _to_struct(point: IndexPoint) -> models.PointStruct:
    vectors: dict[str, Any] = {SPARSE: _sparse(point.sparse)} if point.sparse.indices else {}
    if point.dense is not None:
        vectors[DENSE] = np.frombuffer(point.dense, "<f2").astype(np.float32).tolist()
    return models.PointStruct(id=point.memory_id, vector=vectors, payload=payload_of(point))


def _sparse(sparse: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))


def _filter(where: Sequence[Condition]) -> models.Filter:
    return models.Filter(must=_clauses(where))


def _clauses(where: Sequence[Condition]) -> list[Any]:
    return [_clause(condition) for condition in where]


def _clause(condition: Condition) -> models.FieldCondition:
    if isinstance(condition, Between):
        span = models.Range(gte=condition.low, lt=condition.high)
        return models.FieldCondition(key=condition.key, range=span)
    match = models.MatchAny(any=list(condition.values))
    return models.FieldCondition(key=condition.key, match=match)


def _version(payload: Any) -> int:
    return int((payload or {}).get("version", 0))
