"""Client for Echomesh, the backend of AI companions and assistants.

    async with echomesh.Client("127.0.0.1:7400", api_key=key) as client:
        async for frame in client.chat("Hello!"):
            if isinstance(frame, echomesh.Text):
                print(frame.text, end="")

`SyncClient` has the same methods without `await`. Everything that can fail raises
`EchomeshError`, whose `reason` is a value of `echomesh.common.v1.ErrorReason`.
"""

from echomesh._client import Client
from echomesh._errors import EchomeshError, FieldViolation
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
from echomesh._types import Conversation, Memory, Message, NewMessage, RecallHit, RecallResult

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "Client",
    "Conversation",
    "Decision",
    "EchomeshError",
    "FieldViolation",
    "Final",
    "Frame",
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
    "ToolCall",
    "UsedMemory",
    "__version__",
]
