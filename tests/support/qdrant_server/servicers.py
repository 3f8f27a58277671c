"""Qdrant's gRPC services, as far as memory's index calls them."""

# ruff: noqa: N802 - the names of the calls are Qdrant's
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import qdrant_edge as edge
from qdrant_client import grpc as q

from tests.support.qdrant_server import messages
from tests.support.qdrant_server.engine import Collections, RefusedError

T = TypeVar("T")

Context = grpc.aio.ServicerContext[Any, Any]

VERSION = "1.18.2"
"""The version of Qdrant whose behaviour is imitated."""


class Desk:
    """Runs the engine's calls on one thread and answers its refusals as a server does."""

    def __init__(self, collections: Collections, thread: ThreadPoolExecutor) -> None:
        self.collections = collections
        self._thread = thread

    async def run(self, context: Context, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; its failure ends the call with a status."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RefusedError as error:
            code, text = error.code, str(error)
        except Exception as error:  # the engine's own: a wrong length, a broken folder
            code, text = grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}"
        await context.abort(code, text)
        raise AssertionError("abort raises")


class RootServicer(q.QdrantServicer):  # type: ignore[misc]
    """Says that the server is there."""

    async def HealthCheck(self, request: Any, context: Context) -> Any:
        """Name and version."""
        return q.HealthCheckReply(title="qdrant - vector search engine", version=VERSION)


class CollectionsServicer(q.CollectionsServicer):  # type: ignore[misc]
    """Makes, lists and drops collections."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def List(self, request: Any, context: Context) -> Any:
        """Names of all collections."""
        names = await self._desk.run(context, self._desk.collections.names)
        return q.ListCollectionsResponse(
            collections=[q.CollectionDescription(name=name) for name in names]
        )

    async def CollectionExists(self, request: Any, context: Context) -> Any:
        """Whether there is one of this name."""
        name, collections = request.collection_name, self._desk.collections
        found = await self._desk.run(context, lambda: collections.exists(name))
        return q.CollectionExistsResponse(result=q.CollectionExists(exists=found))

    async def Create(self, request: Any, context: Context) -> Any:
        """Make an empty collection."""

        def work() -> None:
            config = messages.collection_config(request)
            self._desk.collections.create(request.collection_name, config)

        await self._desk.run(context, work)
        return q.CollectionOperationResponse(result=True)

    async def Delete(self, request: Any, context: Context) -> Any:
        """Drop a collection."""
        name, collections = request.collection_name, self._desk.collections
        gone = await self._desk.run(context, lambda: collections.delete(name))
        return q.CollectionOperationResponse(result=gone)


class PointsServicer(q.PointsServicer):  # type: ignore[misc]
    """Stores and finds points."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Upsert(self, request: Any, context: Context) -> Any:
        """Store points, replacing those of the same id."""

        def work(shard: Any) -> None:
            points = [messages.point(each) for each in request.points]
            shard.update(edge.UpdateOperation.upsert_points(points))

        return await self._changed(request, context, work)

    async def Delete(self, request: Any, context: Context) -> Any:
        """Delete points by id or by filter."""

        def work(shard: Any) -> None:
            kind = request.points.WhichOneof("points_selector_one_of")
            if kind == "filter":
                where = messages.filter_of(request.points.filter)
                shard.update(edge.UpdateOperation.delete_points_by_filter(where))
            else:
                ids = [messages.point_id(each) for each in request.points.points.ids]
                shard.update(edge.UpdateOperation.delete_points(ids))

        return await self._changed(request, context, work)

    async def CreateFieldIndex(self, request: Any, context: Context) -> Any:
        """Index a field of the payload."""

        def work(shard: Any) -> None:
            params = messages.field_index(request.field_index_params)
            shard.update(edge.UpdateOperation.create_field_index(request.field_name, params))

        return await self._changed(request, context, work)

    async def Get(self, request: Any, context: Context) -> Any:
        """Points by id; unknown ones are left out."""

        def work(shard: Any) -> Any:
            ids = [messages.point_id(each) for each in request.ids]
            wanted = messages.payload_selector(request.with_payload)
            records = shard.retrieve(ids, with_payload=wanted, with_vector=False)
            return q.GetResponse(result=[messages.retrieved(record) for record in records])

        return await self._with_shard(request, context, work)

    async def Query(self, request: Any, context: Context) -> Any:
        """The nearest points, best first."""

        def work(shard: Any) -> Any:
            found = shard.query(messages.query(request))
            return q.QueryResponse(result=[messages.scored(each) for each in found])

        return await self._with_shard(request, context, work)

    async def Scroll(self, request: Any, context: Context) -> Any:
        """Points in id order, from ``offset`` on."""

        def work(shard: Any) -> Any:
            wanted = edge.ScrollRequest(
                offset=messages.point_id(request.offset) if request.HasField("offset") else None,
                limit=request.limit if request.HasField("limit") else 10,
                filter=messages.filter_of(request.filter),
                with_payload=messages.payload_selector(request.with_payload),
            )
            records, following = shard.scroll(wanted)
            page = [messages.retrieved(record) for record in records]
            next_id = None if following is None else messages.id_message(following)
            return q.ScrollResponse(result=page, next_page_offset=next_id)

        return await self._with_shard(request, context, work)

    async def Count(self, request: Any, context: Context) -> Any:
        """How many points meet a filter."""

        def work(shard: Any) -> Any:
            wanted = edge.CountRequest(exact=True, filter=messages.filter_of(request.filter))
            return q.CountResponse(result=q.CountResult(count=shard.count(wanted)))

        return await self._with_shard(request, context, work)

    async def _with_shard(self, request: Any, context: Context, work: Callable[[Any], T]) -> T:
        name, collections = request.collection_name, self._desk.collections
        return await self._desk.run(context, lambda: work(collections.shard(name)))

    async def _changed(self, request: Any, context: Context, work: Callable[[Any], None]) -> Any:
        started = time.monotonic()
        await self._with_shard(request, context, work)
        result = q.UpdateResult(status=q.UpdateStatus.Completed)
        return q.PointsOperationResponse(result=result, time=time.monotonic() - started)


class ApiKey(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the server's key."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Let a call through if it has the key."""
        if dict(details.invocation_metadata or ()).get("api-key") == self._key:
            return await continuation(details)

        async def refuse(request: Any, context: Context) -> Any:
            text = "Must provide an API key or an Authorization bearer token"
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

        return grpc.unary_unary_rpc_method_handler(refuse)
