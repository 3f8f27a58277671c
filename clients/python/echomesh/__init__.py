"""Client for Echomesh, the backend of AI companions and assistants.

    async with echomesh.Client("127.0.0.1:7400", api_key=key) as client:
        async for frame in client.chat("Hello!"):
            if isinstance(frame, echomesh.Text):
                print(frame.text, end="")

`SyncClient` has the same methods without `await`. Everything that can fail raises
`EchomeshError`, whose `reason` is a value of `echomesh.common.v1.ErrorReason`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echomesh._auditing import AUDIT_LOGS, AuditAnchor, AuditEntry
    from echomesh._client import Client
    from echomesh._errors import EchomeshError, FieldViolation
    from echomesh._explaining import Attempt, Explanation, Timings
    from echomesh._frames import (
        Accepted,
        Decision,
        Final,
        Frame,
        MemoriesUsed,
        Progress,
        Restart,
        Resume,
        Text,
        ToolCall,
        UsedMemory,
    )
    from echomesh._sync import SyncClient
    from echomesh._types import (
        Conversation,
        ImportResult,
        Memory,
        Message,
        NewMessage,
        RecallHit,
        RecallResult,
    )

__version__ = "0.1.0"

# Services import the stubs below this package and not the client: it is loaded when asked for.
_HOMES = {
    "_auditing": ("AUDIT_LOGS", "AuditAnchor", "AuditEntry"),
    "_client": ("Client",),
    "_errors": ("EchomeshError", "FieldViolation"),
    "_explaining": ("Attempt", "Explanation", "Timings"),
    "_frames": (
        "Accepted",
        "Decision",
        "Final",
        "Frame",
        "MemoriesUsed",
        "Progress",
        "Restart",
        "Resume",
        "Text",
        "ToolCall",
        "UsedMemory",
    ),
    "_sync": ("SyncClient",),
    "_types": (
        "Conversation",
        "ImportResult",
        "Memory",
        "Message",
        "NewMessage",
        "RecallHit",
        "RecallResult",
    ),
}

__all__ = [
    "AUDIT_LOGS",
    "Accepted",
    "Attempt",
    "AuditAnchor",
    "AuditEntry",
    "Client",
    "Conversation",
    "Decision",
    "EchomeshError",
    "Explanation",
    "FieldViolation",
    "Final",
    "Frame",
    "ImportResult",
    "MemoriesUsed",
    "Memory",
    "Message",
    "NewMessage",
    "Progress",
    "RecallHit",
    "RecallResult",
    "Restart",
    "Resume",
    "SyncClient",
    "Text",
    "Timings",
    "ToolCall",
    "UsedMemory",
    "__version__",
]


def __getattr__(name: str) -> Any:
    for module, exported in _HOMES.items():
        if name in exported:
            return getattr(import_module(f"echomesh.{module}"), name)
    raise AttributeError(f"module 'echomesh' has no attribute {name!r}")
