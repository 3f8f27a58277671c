"""Tokens that expire under way trouble nobody."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import grpc
import jwt
import pytest

from echomesh.auth.v1 import auth_pb2
from tests.conformance.cases import case
from tests.conformance.door import EXPIRED, Door, Refusal
from tests.conformance.sdk import SdkError
from tests.conformance.world import LEEWAY_S, Case

_ANSWERS = {
    "ExchangeApiKey": auth_pb2.ExchangeApiKeyResponse,
    "ExchangeToken": auth_pb2.ExchangeTokenResponse,
    "Refresh": auth_pb2.RefreshResponse,
}


def lasting_tokens(door: Door) -> None:
    """Tell clients of tokens that they are good for longer than they are."""
    for method, kind in _ANSWERS.items():
        door.rewrites(method, partial(_lasting, kind))


def _lasting(kind: type[Any], answer: bytes) -> bytes:
    message = kind.FromString(answer)
    message.tokens.access_expires_at.FromSeconds(round(time.time() + 600))
    return bytes(message.SerializeToString())


async def is_void(authorization: str) -> None:
    """Wait until no validator takes a token any more."""
    claims = jwt.decode(authorization.split()[1], options={"verify_signature": False})
    await asyncio.sleep(claims["exp"] + LEEWAY_S + 0.5 - time.time())


def sent_refreshes(door: Door) -> list[auth_pb2.RefreshRequest]:
    """The Refresh calls that a door has seen."""
    return [auth_pb2.RefreshRequest.FromString(s.request) for s in door.seen("Refresh")]


@case
async def a_token_about_to_expire_is_renewed_before_the_call(it: Case) -> None:
    """By the refresh token, each with an id of its own, not by signing in again."""
    user, door = await it.one_door()
    for _ in range(2):
        await user.do("memories")
    refreshes = sent_refreshes(door)
    assert len(refreshes) >= 2
    assert len({r.request_id for r in refreshes}) == len(refreshes)
    assert len(door.seen("ExchangeToken")) == 1


@case
async def a_good_token_is_used_again(it: Case) -> None:
    user, (door,) = await it.replicas(1)
    lasting_tokens(door)
    for _ in range(3):
        await user.do("memories")
    assert len({s.metadata["authorization"] for s in door.seen("ListMemories")}) == 1
    assert door.seen("Refresh") == []


@case
async def a_token_that_expired_unnoticed_is_renewed_and_the_call_made_again(it: Case) -> None:
    """A clock that is wrong, or a machine that slept: only the mesh knows that it is too late."""
    user, (door,) = await it.replicas(1)
    lasting_tokens(door)
    await user.do("memories")
    await is_void(door.seen("ListMemories")[0].metadata["authorization"])
    assert await user.do("memories") == []
    tokens = [s.metadata["authorization"] for s in door.seen("ListMemories")]
    assert tokens[0] == tokens[-2] != tokens[-1]


@case
async def many_calls_that_were_refused_with_one_token_renew_it_once(it: Case) -> None:
    user, (door,) = await it.replicas(1)
    lasting_tokens(door)
    await user.do("memories")
    door.expires(door.seen("ListMemories")[0].metadata["authorization"])
    assert await asyncio.gather(*(user.do("memories") for _ in range(5))) == [[]] * 5
    assert len(door.seen("Refresh")) == 1


@case
async def a_token_that_stays_expired_is_told(it: Case) -> None:
    user, door = await it.one_door()
    door.fails("ListMemories", EXPIRED, times=9)
    with pytest.raises(SdkError) as expired:
        await user.do("memories")
    assert (expired.value.code, expired.value.reason) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    assert len(door.seen("ListMemories")) == 2


@case
async def a_refresh_whose_answer_was_lost_is_no_reuse(it: Case) -> None:
    """The same token is sent again under the same id, and the mesh gives another successor."""
    user, door = await it.one_door()
    before = len(door.seen("Refresh"))
    door.loses_answer("Refresh")
    assert await user.do("memories") == []
    lost, again = sent_refreshes(door)[before : before + 2]
    assert lost == again
    assert await user.do("memories") == []
    assert len(door.seen("ExchangeToken")) == 1


@case
async def a_renewal_that_one_call_gave_up_is_gone_on_with_by_the_next(it: Case) -> None:
    """Under the same id: the mesh has used the refresh token, and another use would be reuse."""
    user, door = await it.one_door()
    before = len(door.seen("Refresh"))
    door.holds_answer("Refresh")
    with pytest.raises(SdkError) as late:
        await user.do("memories", timeout_s=2)
    assert late.value.code == "DEADLINE_EXCEEDED"
    assert await user.do("memories") == []
    given_up, again = sent_refreshes(door)[before : before + 2]
    assert given_up == again
    assert len(door.seen("ExchangeToken")) == 1


@case
async def a_refused_refresh_is_followed_by_signing_in(it: Case) -> None:
    user, door = await it.one_door()
    door.fails("Refresh", Refusal(grpc.StatusCode.UNAUTHENTICATED, "REFRESH_TOKEN_REUSED"))
    assert await user.do("memories") == []
    assert len(door.seen("ExchangeToken")) == 2
