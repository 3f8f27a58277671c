"""Stream a reply and show the memories it rests on.

python stream_a_reply.py ADDRESS API_KEY "Hello there"
"""

from __future__ import annotations

import asyncio
import sys

import echomesh


async def main() -> None:
    """Print the frames of one reply as they come."""
    address, api_key, text = sys.argv[1:4]
    async with echomesh.Client(address, api_key=api_key) as client:
        async for frame in client.chat(text):
            match frame:
                case echomesh.MemoriesUsed():
                    for memory in frame.memories[:3]:
                        print(f"[{memory.time:%Y-%m-%d} {memory.speaker}: {memory.text}]")
                case echomesh.Text():
                    print(frame.text, end="", flush=True)
                case echomesh.Final():
                    print(f"\n{frame.finish_reason} after {frame.total_s:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
