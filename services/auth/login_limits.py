"""How long failed sign-ins must wait: by account and network together, pure arithmetic.

An attacker slows down only their own network's attempts on an account: whoever owns the account
signs in from elsewhere as before.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

# A person mistypes a few times; several devices may sign in at once.
FREE_FAILURES = 10
# Doubles with each failure after the free ones.
FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(minutes=15)
# After so long without a failure all is forgotten.
MEMORY = timedelta(hours=1)
# One household or office: what one customer usually gets.
_NETWORK_BITS = {4: 32, 6: 64}


@dataclass(frozen=True)
class Failures:
    """Failed sign-ins of one account from one network."""

    count: int
    last_at: datetime
    blocked_until: datetime


def network_of(peer: str) -> str:
    """Return the network of a gRPC peer such as `ipv4:10.0.0.7:4242`; others are one network."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "local"
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = _NETWORK_BITS[address.version]
    return str(ipaddress.ip_network((address, bits), strict=False))


def attempt_key(tenant: str, username: str, network: str) -> bytes:
    """Return the hash under which attempts are counted; the parts cannot run into each other."""
    parts = (tenant, username, network)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).digest()


def wait_s(failures: Failures | None, now: datetime) -> float:
    """Return the seconds until the next attempt is looked at; 0: now."""
    if failures is None or now - failures.last_at >= MEMORY:
        return 0.0
    return max(0.0, (failures.blocked_until - now).total_seconds())


def count_failure(failures: Failures | None, now: datetime) -> Failures:
    """Return the count after one more failure at `now`."""
    if failures is None or now - failures.last_at >= MEMORY:
        return Failures(1, now, now)
    count = failures.count + 1
    return Failures(count, now, now + _wait_after(count))


def uncount_failure(failures: Failures, attempted_at: datetime) -> Failures | None:
    """Return the count without an attempt that was counted at `attempted_at` but never made.

    It was allowed at that time, so unless another failed since, nobody need wait any more.
    """
    count = failures.count - 1
    if count == 0:
        return None
    if failures.last_at == attempted_at:
        return Failures(count, attempted_at, attempted_at)
    return Failures(count, failures.last_at, failures.last_at + _wait_after(count))


def _wait_after(count: int) -> timedelta:
    over = count - FREE_FAILURES
    if over < 0:
        return timedelta(0)
    # 512 first waits pass the longest one; a larger power might overflow.
    return min(FIRST_WAIT * (1 << min(over, 9)), LONGEST_WAIT)
