"""Tell the companion something as one of your end users, and ask about it.

python remember_and_ask.py ADDRESS API_KEY
"""

from __future__ import annotations

import sys

import echomesh


def main() -> None:
    """Remember, then ask."""
    address, api_key = sys.argv[1:3]
    with echomesh.SyncClient(address, api_key=api_key) as client:
        user = client.as_user("example-user")
        user.remember("My bicycle is chained to the blue fence.")
        text, final = user.reply("Where is my bicycle?")
        print(text)
        print(f"({final.model}, {final.total_s * 1000:.0f} ms)")


if __name__ == "__main__":
    main()
