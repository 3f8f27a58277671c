"""What `helm test` runs: a message through the mesh, as any client sends it, and recalled."""

import asyncio
import json
import os
import uuid
from pathlib import Path

import echomesh

WAIT_S = 60.0


async def main() -> None:
    """Say something new and find it again; any error fails the test."""
    roots = Path("/tls/ca.crt")
    endpoints = json.loads(os.environ["ENDPOINTS"])
    client = echomesh.Client(
        endpoints["routing"],
        api_key=Path("/credentials/api_key").read_text(),
        tls=os.environ["TLS"] == "true",
        root_certificates=(roots.read_bytes() or None) if roots.exists() else None,
        endpoints=endpoints,
        server_name=os.environ["SERVER_NAME"] or None,
        timeout_s=WAIT_S,
    )
    async with client:
        user = client.as_user("helm-test")
        code = uuid.uuid4().hex[:8]
        text, final = await user.reply(f"My locker code is {code}.", tier="standard")
        print(f"reply: {text!r} by {final.model}, message {final.message_stored}")
        assert final.message_stored == "stored", "the message was not stored: see memory's log"
        found = await user.recall("What is my locker code?")
        assert any(code in hit.memory.text for hit in found.hits), "the message is not recalled"
        print("recalled")


asyncio.run(main())
