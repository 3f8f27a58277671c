"""People who chat through the SDK inside the cluster; runs in a pod of the routing image.

Arguments: address, API key, people, prefix of their names, a file that ends the load once it is
there. Every reply and every error that a person sees is a JSON line on standard output.
"""

import asyncio
import itertools
import json
import sys
from pathlib import Path

import echomesh

POLL_S = 0.2


def tell(**event: object) -> None:
    """One event."""
    print(json.dumps(event), flush=True)


async def chat(user: echomesh.Client, leaving: asyncio.Event) -> None:
    """Say one thing after the other, as fast as the replies come."""
    for number in itertools.count():
        if leaving.is_set():
            return
        try:
            _, final = await user.reply(f"Thing {number} lies in box {number}.")
        except echomesh.EchomeshError as error:
            tell(error=f"{error.code.name} {error.reason}: {error}")
        else:
            pairs = ((final.message_id, final.message_stored), (final.reply_id, final.reply_stored))
            stored = [identity for identity, state in pairs if state == "stored"]
            tell(stored=stored, degraded=list(final.degraded), seconds=final.total_s)


async def main(address: str, key: str, people: int, prefix: str, stop: Path) -> None:
    """Chat until the file is there."""
    leaving = asyncio.Event()
    # A connection each, as people have.
    clients = [echomesh.Client(address, api_key=key, tls=False) for _ in range(people)]
    users = [client.as_user(f"{prefix}{number}") for number, client in enumerate(clients)]
    tasks = [asyncio.create_task(chat(user, leaving)) for user in users]
    while not stop.exists():
        await asyncio.sleep(POLL_S)
    leaving.set()
    await asyncio.gather(*tasks)
    for client in clients:
        await client.close()
    tell(left=True)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], Path(sys.argv[5])))
