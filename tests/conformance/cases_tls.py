"""TLS, as a public listener or a balancer in front of it speaks it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from services.runtime.certificates import Authority, host_certificate, new_authority
from tests.conformance.cases import case
from tests.conformance.door import Door, doors
from tests.conformance.sdk import Person, SdkError
from tests.conformance.world import Case

NAME = "mesh.example"


async def secured(it: Case, authority: Authority) -> Door:
    """A door with a certificate for NAME."""
    (door,) = await it.stack.enter_async_context(doors(it.world.upstreams, 1))
    await door.kill()
    pem = host_certificate(authority, [NAME], datetime.now(UTC), timedelta(days=1))
    await door.open(grpc.ssl_server_credentials([(pem.key, pem.cert)]))
    return door


async def trusting(it: Case, door: Door, authority: Authority, name: str = NAME) -> Person:
    """A user who trusts an authority and takes the door for a host of this name."""
    client = await it.connect(
        door.address,
        endpoints=dict.fromkeys(it.world.upstreams, door.address),
        tls=True,
        root_certificates=authority.cert_pem.decode(),
        server_name=name,
    )
    return await it.user(client)


def now_signing() -> Authority:
    """A new authority."""
    return new_authority(datetime.now(UTC))


@case
async def a_mesh_is_trusted_by_the_authority_that_was_named(it: Case) -> None:
    authority = now_signing()
    door = await secured(it, authority)
    assert await (await trusting(it, door, authority)).do("conversations") == []


@case
async def a_mesh_of_another_authority_or_name_is_told_nothing(it: Case) -> None:
    """Neither the key nor a token goes there; another client of the same mesh is well."""
    authority = now_signing()
    door = await secured(it, authority)
    for stranger in (
        await trusting(it, door, now_signing()),
        await trusting(it, door, authority, "elsewhere.example"),
    ):
        with pytest.raises(SdkError) as refused:
            await stranger.do("conversations", timeout_s=3)
        assert refused.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert door.seen("ExchangeApiKey") == []
    assert await (await trusting(it, door, authority)).do("conversations") == []
