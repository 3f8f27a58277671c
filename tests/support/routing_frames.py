"""Chat calls of tests: the frames of a reply, read and told apart."""

from __future__ import annotations

import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.models.v1 import models_pb2
from echomesh.routing.v1 import chat_pb2
from tests.support.routing_mesh import FakeMemory, FakeModels, RoutingMesh, model, routing_mesh

EXTRACTIVE = model("extractive", generative=False)
STORED, NOT_STORED, UNKNOWN = (
    chat_pb2.STORE_RESULT_STORED,
    chat_pb2.STORE_RESULT_NOT_STORED,
    chat_pb2.STORE_RESULT_UNKNOWN,
)


def hit(number: int, text: str, **changes: Any) -> memory_pb2.RecallHit:
    """A recalled memory; the lower its number, the better."""
    memory_id = str(uuid.UUID(int=number))
    memory = memory_pb2.Memory(
        id=memory_id, text=text, speaker="Maya", role=conversation_pb2.MESSAGE_ROLE_USER, **changes
    )
    return memory_pb2.RecallHit(memory=memory, score=1.0 / number)


async def collect(call: Any) -> list[chat_pb2.ChatResponse]:
    """All frames of a call, which must be numbered from 1."""
    frames = [frame async for frame in call]
    assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
    return frames


async def collect_rest(call: Any) -> None:
    """Read a call to its end."""
    async for _ in call:
        pass


def kinds(frames: list[chat_pb2.ChatResponse]) -> list[str]:
    """The frames by their kind."""
    return [str(frame.WhichOneof("frame")) for frame in frames]


def shown(frames: list[chat_pb2.ChatResponse]) -> str:
    """The reply as a client shows it: a restart voids what came before."""
    text = ""
    for frame in frames:
        kind = frame.WhichOneof("frame")
        text = "" if kind == "restart" else text + frame.text.text
    return text


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """The reason of an error, and whether it says when to try again."""
    blob = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    found = False
    for detail in status_pb2.Status.FromString(blob).details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        found = found or detail.Is(retry.DESCRIPTOR)
    return info.reason, found


def mesh_of(
    folder: Path, memory: FakeMemory, *models: models_pb2.Model, **scripts: Any
) -> tuple[FakeModels, AbstractAsyncContextManager[RoutingMesh]]:
    """Models that do as their scripts say, and a mesh with them that is yet to be started."""
    fake = FakeModels(list(models), scripts)
    return fake, routing_mesh(folder, memory, fake)
