"""Builds the memory service: the only place that opens and closes things."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from echomesh.embeddings.v1 import embeddings_pb2_grpc
from echomesh.memory.v1 import audit_pb2_grpc, conversation_pb2_grpc, memory_pb2_grpc
from services.memory.audit_service import AuditServicer
from services.memory.config import MemorySettings
from services.memory.conversation_service import ConversationServicer
from services.memory.embedder import Embedder, GrpcEmbedder
from services.memory.index import VectorIndex
from services.memory.index.edge import EdgeIndex, edge_supervisor
from services.memory.indexing import Indexer
from services.memory.keeper import Keeper
from services.memory.listening import listen
from services.memory.memory_service import MemoryServicer
from services.memory.outbox import OutboxRunner
from services.memory.postgres.job_store import PostgresJobStore
from services.memory.postgres.stores import PostgresStore
from services.memory.recaller import Recaller
from services.runtime.audit import AuditLog
from services.runtime.audit_reading import AuditReader
from services.runtime.clock import SystemClock
from services.runtime.errors import AppError, Reason
from services.runtime.logs import get_logger
from services.runtime.migrate import MigrationError, check_schema
from services.runtime.postgres import Database
from services.runtime.process import socket_folder
from services.runtime.security import open_security
from services.runtime.server import Registration, Server, background

JOBS_TIMEOUT_S = 30.0
"""Background statements may take longer than a request's."""

MIGRATIONS = Path(__file__).parent / "migrations"

PACKAGE = "echomesh.memory.v1"


async def build(settings: MemorySettings, stack: AsyncExitStack) -> Server:
    """Open everything onto ``stack``; what is away now is used when it returns."""
    await _check_schema(settings)
    security = await open_security("memory", settings, stack)
    embedder = GrpcEmbedder(
        embeddings_pb2_grpc.EmbeddingsServiceStub(security.channels.channel("embeddings"))
    )
    index = await _open_index(settings, stack)
    database = _database(settings, stack)
    store = PostgresStore(database)
    await background(stack, store.let_old_rows_go())
    runner = await _start_jobs(settings, stack, embedder, index)
    clock = SystemClock()
    recaller = Recaller(store, embedder, index, clock, settings.recall_limits)
    conversations = ConversationServicer(store, clock, uuid.uuid4, runner.wake)
    memories = MemoryServicer(store, recaller, clock, uuid.uuid4, runner.wake)
    registrations = [
        Registration(
            conversation_pb2_grpc.add_ConversationServiceServicer_to_server,
            conversations,
            f"{PACKAGE}.ConversationService",
        ),
        Registration(
            memory_pb2_grpc.add_MemoryServiceServicer_to_server,
            memories,
            f"{PACKAGE}.MemoryService",
        ),
        Registration(
            audit_pb2_grpc.add_AuditServiceServicer_to_server,
            AuditServicer(AuditReader(database, AuditLog("memory"))),
            f"{PACKAGE}.AuditService",
        ),
    ]
    return Server(
        "memory",
        settings,
        public=registrations,
        mesh=registrations,
        validator=security.validator,
        verifier=security.verifier,
        dependencies={
            **security.channels.dependencies(),
            "index": lambda: _answers(index),
            "postgres": database.ping,
        },
    )


async def _check_schema(settings: MemorySettings) -> None:
    """Refuse a schema that needs newer code; while Postgres is away there is nothing to refuse."""
    dsn = required(settings.database_direct_url or settings.database_url, "database_url")
    try:
        await check_schema("memory", dsn, MIGRATIONS)
    except MigrationError as error:
        raise AppError(Reason.INTERNAL, str(error)) from error
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        get_logger().warning("schema_not_checked", error=type(error).__name__)


async def _open_index(settings: MemorySettings, stack: AsyncExitStack) -> VectorIndex:
    """Open the Qdrant server's collection if there is one, else the embedded index."""
    if settings.qdrant_url is not None:
        # Imported only where it is used: the client takes tens of megabytes.
        from services.memory.index.qdrant import QdrantIndex, qdrant_client

        key = settings.qdrant_api_key
        client = qdrant_client(settings.qdrant_url, key.get_secret_value() if key else None)
        remote = QdrantIndex(client, settings.qdrant_collection, settings.embedding_dimensions)
        stack.push_async_callback(remote.close)
        return remote
    sockets = socket_folder(settings.data_dir)
    index = EdgeIndex(edge_supervisor(settings.index_dir, settings.embedding_dimensions, sockets))
    stack.push_async_callback(index.close)
    await index.start()
    return index


async def _answers(index: VectorIndex) -> bool:
    """Whether the index takes part now; raises AppError if not."""
    await index.generation()
    return True


def _database(settings: MemorySettings, stack: AsyncExitStack) -> Database:
    dsn = required(settings.database_url, "database_url")
    database = Database(dsn, name="memory", max_size=settings.database_pool)
    stack.push_async_callback(database.close)
    return database


async def _start_jobs(
    settings: MemorySettings, stack: AsyncExitStack, embedder: Embedder, index: VectorIndex
) -> OutboxRunner:
    """Start what keeps the index in step, and return what wakes it."""
    database = jobs_database(settings)
    stack.push_async_callback(database.close)
    store = PostgresJobStore(database)
    keeper = Keeper(store, embedder, index, Indexer(store, embedder, index))
    runner = OutboxRunner(store, keeper.work, settings.outbox_limits)
    await background(stack, runner.run())
    await background(stack, keeper.run())
    if settings.database_direct_url is not None:
        direct = settings.database_direct_url.get_secret_value()
        await background(stack, listen(direct, runner.wake))
    return runner


def jobs_database(settings: MemorySettings) -> Database:
    """Return the database as background work sees it."""
    dsn = required(settings.jobs_database_url, "jobs_database_url")
    return Database(dsn, name="memory-jobs", max_size=4, command_timeout_s=JOBS_TIMEOUT_S)


def required(value: SecretStr | None, name: str) -> str:
    """Return a setting's value; raises AppError with one line if it is unset."""
    if value is None:
        raise AppError(Reason.INTERNAL, f"memory: set ECHOMESH_MEMORY_{name.upper()}")
    return value.get_secret_value()
