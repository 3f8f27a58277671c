"""What NetworkPolicy objects allow between the parts of a release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

COMPONENT = "app.kubernetes.io/component"
Edge = tuple[str, str, str]
Direction = Literal["Egress", "Ingress"]


def edges(policies: Iterable[Mapping[str, Any]], direction: Direction) -> set[Edge]:
    """(caller, called, port) of what is allowed inside the release, as one of the ends says."""
    side, key = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    result = set()
    for policy in policies:
        mine = policy["spec"]["podSelector"]["matchLabels"].get(COMPONENT)
        for rule in policy["spec"].get(side) or ():
            for peer in rule.get(key) or ():
                if "podSelector" not in peer:
                    continue
                other = str(peer["podSelector"]["matchLabels"][COMPONENT])
                ends = (mine, other) if side == "egress" else (other, mine)
                result |= {(*ends, port["port"]) for port in rule["ports"]}
    return result
