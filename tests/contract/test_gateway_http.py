"""The gateway's HTTP: who may come in, each error's status and shape, and what may not dawdle."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from services.gateway import connection, mesh, turning
from services.gateway.openai import completions
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason, Violation
from services.runtime.metrics import REGISTRY
from tests.support.gateway import (
    APP_KEY,
    GatewayWorld,
    ScriptedChat,
    final_frame,
    gateway_world,
    restart_frame,
    text_frame,
)

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"
STATUSES = {
    Reason.INTERNAL: 500,
    Reason.INVALID_REQUEST: 400,
    Reason.MALFORMED_REQUEST: 400,
    Reason.INVALID_PAGE_TOKEN: 400,
    Reason.NOT_SUPPORTED: 400,
    Reason.MODEL_LACKS_ABILITY: 400,
    Reason.TOKEN_MISSING: 401,
    Reason.TOKEN_INVALID: 401,
    Reason.TOKEN_EXPIRED: 401,
    Reason.REFRESH_TOKEN_REUSED: 401,
    Reason.CREDENTIALS_INVALID: 401,
    Reason.CALLER_INVALID: 500,
    Reason.PERMISSION_DENIED: 403,
    Reason.LOGIN_RATE_LIMITED: 429,
    Reason.NOT_FOUND: 404,
    Reason.ALREADY_EXISTS: 409,
    Reason.REQUEST_ID_REUSED: 409,
    Reason.VERSION_CONFLICT: 409,
    Reason.TURN_SUPERSEDED: 409,
    Reason.OVERLOADED: 429,
    Reason.MESSAGE_TOO_LARGE: 413,
    Reason.DEADLINE_EXCEEDED: 504,
    Reason.STORAGE_FULL: 503,
    Reason.MODEL_UNAVAILABLE: 503,
    Reason.MODEL_BAD_RESPONSE: 502,
    Reason.CONTEXT_TOO_LONG: 400,
    Reason.MODEL_REFUSED: 400,
}
LONG_KEY = "Bearer " + "x" * 300
GUARDED = (
    ("POST", CHAT),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
)
# These are tried again behind the client's back first, or nobody is left to be told.
NOT_TOLD_AT_ONCE = {Reason.DEPENDENCY_UNAVAILABLE, Reason.DRAINING, Reason.CANCELLED}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GatewayWorld]:
    chat = ScriptedChat([text_frame("Hello"), final_frame()])
    async with gateway_world(tmp_path, chat=chat) as running:
        yield running


def host_and_port(world: GatewayWorld) -> tuple[str, int]:
    host, _, port = world.address.rpartition(":")
    return host, int(port)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends; a reset is an end too."""
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b""


def failing(*frames: Any) -> ScriptedChat:
    return ScriptedChat(list(frames))


def test_every_reason_of_the_mesh_has_a_status() -> None:
    assert set(Reason) == set(STATUSES) | NOT_TOLD_AT_ONCE


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_has_its_status_and_openais_shape(tmp_path: Path, stream: bool) -> None:
    wrong = [Violation("messages", "is wrong")]
    scripts = [[AppError(reason, "so it is", violations=wrong)] for reason in STATUSES]
    async with gateway_world(tmp_path, chat=ScriptedChat(*scripts)) as world, world.http() as http:
        for reason, status in STATUSES.items():
            answer = await http.post(CHAT, json={**HELLO, "stream": stream})
            assert answer.status_code == status, reason
            told = answer.json()["error"]
            assert set(told) == {"message", "type", "param", "code"}
            assert told["param"] == "messages"
            assert told["message"].startswith("so it is")


@pytest.mark.parametrize(("after_s", "told"), [(None, "1"), (0.2, "1"), (2.4, "3")])
async def test_overload_says_when_to_come_back(
    tmp_path: Path, after_s: float | None, told: str
) -> None:
    error = AppError(Reason.OVERLOADED, "full", retry_after_s=after_s)
    async with gateway_world(tmp_path, chat=failing(error)) as world, world.http() as http:
        answer = await http.post(CHAT, json=HELLO)
    assert (429, told) == (answer.status_code, answer.headers["retry-after"])


async def test_a_lost_replica_is_tried_again_unseen(tmp_path: Path) -> None:
    away = AppError(Reason.DEPENDENCY_UNAVAILABLE, "routing is away")
    chat = ScriptedChat([text_frame("Hel"), away], [away], [text_frame("Hello"), final_frame()])
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        answer = await http.post(CHAT, json={**HELLO, "stream": True})
    said = [
        json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")
    ]
    assert [c["choices"][0]["delta"].get("content", "") for c in said[:-1]] == ["", "Hel", "lo"]
    assert len({request.request_id for request in chat.requests}) == 1
    assert len(chat.requests) == 3


async def test_routing_that_is_started_again_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process needs some seconds for that: more tries than a refusal is worth."""
    monkeypatch.setattr(turning, "_BACKOFF_S", 0.001)
    gone = AppError(Reason.DEPENDENCY_UNAVAILABLE, "gone", metadata={"dependency": "routing"})
    chat = ScriptedChat(*([gone] for _ in range(9)), [text_frame("Hello"), final_frame()])
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        assert (await http.post(CHAT, json=HELLO)).status_code == 200


async def test_a_mesh_that_stays_away_is_told_in_the_end(tmp_path: Path) -> None:
    away = AppError(Reason.DEPENDENCY_UNAVAILABLE, "routing is away", retry_after_s=1.0)
    async with gateway_world(tmp_path, chat=failing(away)) as world, world.http() as http:
        answer = await http.post(CHAT, json=HELLO)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_an_error_in_the_middle_of_a_stream_is_an_event(tmp_path: Path) -> None:
    chat = failing(text_frame("Hello"), restart_frame(), text_frame("Good day"))
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        answer = await http.post(CHAT, json={**HELLO, "stream": True})
    last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "turn_superseded"


async def test_a_defect_is_told_without_its_text(tmp_path: Path) -> None:
    class Broken:
        def Chat(self, request: Any) -> Any:  # noqa: N802
            raise RuntimeError("a secret of ours")

    chat: Any = Broken()
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        answer = await http.post(CHAT, json=HELLO)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Basic YTpi", "Bearer", "Bearer nonsense", "Bearer \u00e4", LONG_KEY],
)
async def test_nothing_is_done_for_nobody(world: GatewayWorld, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    async with world.http(key=None) as http:
        for method, path in GUARDED:
            answer = await http.request(method, path, json=HELLO, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_health_and_the_description_are_for_everybody(world: GatewayWorld) -> None:
    async with world.http(key=None) as http:
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/openapi.json")).json()["openapi"] == "3.1.0"


async def test_a_key_is_exchanged_once_for_many_requests(world: GatewayWorld) -> None:
    async with world.http() as http:
        await asyncio.gather(*(http.post(CHAT, json=HELLO) for _ in range(5)))
    assert world.auth.exchanges == ["key-alice"]


async def test_a_refused_key_does_not_ask_auth_each_time(tmp_path: Path) -> None:
    clock = FakeClock()
    async with gateway_world(tmp_path, clock=clock) as world, world.http("wrong") as http:
        for _ in range(3):
            assert (await http.get("/v1/models")).status_code == 401
        assert world.auth.exchanges == ["wrong"]
        clock.advance(3.0)
        await http.get("/v1/models")
    assert world.auth.exchanges == ["wrong", "wrong"]


async def test_the_user_field_is_the_applications_end_user(tmp_path: Path) -> None:
    async with gateway_world(tmp_path) as world, world.http(APP_KEY) as http:
        for body in (HELLO, {**HELLO, "user": "ann"}):
            assert (await http.post(CHAT, json=body)).status_code == 200
        headers = {"x-openwebui-user-id": "bob"}
        assert (await http.post(CHAT, json=HELLO, headers=headers)).status_code == 200
        assert world.chat.users == ["app", "end-ann", "end-bob"]  # type: ignore[union-attr]


async def test_a_user_whose_id_is_too_long_is_nobody_else(tmp_path: Path) -> None:
    """Cut short, it could be the id of another person."""
    async with gateway_world(tmp_path) as world, world.http(APP_KEY) as http:
        headers = {"x-openwebui-user-id": "b" * 129}
        answer = await http.post(CHAT, json=HELLO, headers=headers)
    assert answer.status_code == 400
    assert not world.chat.requests


async def test_an_operator_may_leave_the_users_of_a_front_end_aside(tmp_path: Path) -> None:
    async with gateway_world(tmp_path, trusted_user_headers=False) as world:
        async with world.http(APP_KEY) as http:
            await http.post(CHAT, json=HELLO, headers={"x-openwebui-user-id": "bob"})
        assert world.chat.users == ["app"]  # type: ignore[union-attr]


async def test_a_key_without_the_role_may_not_name_a_user(tmp_path: Path) -> None:
    async with gateway_world(tmp_path) as world, world.http() as http:
        answer = await http.post(CHAT, json={**HELLO, "user": "ann"})
        assert answer.status_code == 403
        headers = {"x-openwebui-user-id": "bob"}
        assert (await http.post(CHAT, json=HELLO, headers=headers)).status_code == 200
        assert world.chat.users == ["alice"]  # type: ignore[union-attr]


async def test_a_body_that_is_too_large_is_refused(world: GatewayWorld) -> None:
    async with world.http() as http:
        answer = await http.post(CHAT, content=b"x" * (4 * 2**20 + 1))
    assert answer.status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"messages": [{}]}'])
async def test_a_body_that_makes_no_sense_is_refused(world: GatewayWorld, body: bytes) -> None:
    async with world.http() as http:
        for path in (CHAT, "/v1/completions", "/v1/embeddings"):
            assert (await http.post(path, content=body)).status_code == 400


async def test_tokens_in_place_of_texts_are_refused_in_words(world: GatewayWorld) -> None:
    async with world.http() as http:
        answer = await http.post("/v1/embeddings", json={"input": [[1, 2, 3]]})
    assert answer.status_code == 400
    assert "input" in answer.json()["error"]["param"]


async def test_an_unknown_path_and_a_wrong_method_have_the_same_shape(
    world: GatewayWorld,
) -> None:
    async with world.http() as http:
        for method, path, status in (("GET", "/v2", 404), ("DELETE", "/v1/models", 405)):
            answer = await http.request(method, path)
            assert status == answer.status_code
            assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_more_requests_than_there_is_room_for_are_refused_at_once(tmp_path: Path) -> None:
    chat = ScriptedChat([text_frame("Hello")], hold=True)
    async with (
        gateway_world(tmp_path, chat=chat, max_requests=1) as world,
        world.http() as http,
        http.stream("POST", CHAT, json={**HELLO, "stream": True}) as held,
    ):
        assert held.status_code == 200
        answer = await http.get("/v1/models")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert (await http.get("/health")).status_code == 200


async def test_a_connection_that_breaks_closes_the_call(tmp_path: Path) -> None:
    chat = ScriptedChat([text_frame("Hello")], hold=True)
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        async with http.stream("POST", CHAT, json={**HELLO, "stream": True}) as held:
            assert held.status_code == 200
        await asyncio.wait_for(chat.closed.wait(), 60)


async def test_a_stream_that_nobody_takes_is_not_held_open_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "_TAKEN_S", 0.0)
    chat = ScriptedChat([text_frame("Hello")], hold=True)
    async with gateway_world(tmp_path, chat=chat, reply_timeout_s=0.3) as world:
        async with world.http() as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post(CHAT, json={**HELLO, "stream": True})
        assert chat.closed.is_set()


async def test_a_client_that_leaves_while_it_sends_is_no_defect(world: GatewayWorld) -> None:
    def left() -> float:
        labels = {"route": CHAT, "method": "POST", "status": "499"}
        return REGISTRY.get_sample_value("echomesh_http_server_seconds_count", labels) or 0.0

    before = left()
    with capture_logs() as logged:
        _, writer = await asyncio.open_connection(*host_and_port(world))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer key-alice\r\n"
        writer.write(head.encode() + b"content-length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        while left() == before:
            await asyncio.sleep(0.01)
    assert not logged


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "_BODY_S", 0.2)
    async with gateway_world(tmp_path) as world:
        reader, writer = await asyncio.open_connection(*host_and_port(world))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer key-alice\r\n"
        writer.write(head.encode() + b"content-length: 100\r\n\r\n{")
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()


async def test_a_request_carries_on_its_callers_trace_and_is_counted_by_its_route(
    world: GatewayWorld,
) -> None:
    def counted() -> float:
        labels = {"route": "/v1/models/{model:path}", "method": "GET", "status": "404"}
        return REGISTRY.get_sample_value("echomesh_http_server_seconds_count", labels) or 0.0

    before, trace = counted(), "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    async with world.http() as http:
        answer = await http.get("/v1/models/none", headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (404, trace)
    assert counted() == before + 1


async def test_a_client_that_never_sends_its_request_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    async with gateway_world(tmp_path) as world:
        host, _, port = world.address.rpartition(":")
        for sent in (b"", b"GET /health HTTP/1.1\r\nhost: a\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            assert await rest_of(reader) == b""
            writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n" + b"x-junk: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"x-junk: " + b"x" * 200_000,
        b"GET /" + b"x" * 200_000,
    ],
    ids=["too large", "a header without end", "a path without end"],
)
async def test_a_request_whose_head_never_ends_is_cut_off(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 1000.0)
    reader, writer = await asyncio.open_connection(*host_and_port(world))
    writer.write(head)
    assert b"200" not in await rest_of(reader)
    writer.close()


async def test_empty_lines_between_requests_keep_no_connection(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await asyncio.open_connection(*host_and_port(world))
    writer.write(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
    await reader.readuntil(b'{"status":"ok"}')
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    writer.write(b"\r\n")
    assert await rest_of(reader) == b""
    writer.close()


async def test_the_rest_of_a_refused_body_is_not_waited_for_ever(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REST_S", 0.2)
    reader, writer = await asyncio.open_connection(*host_and_port(world))
    writer.write(b"POST /none HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
    await reader.readuntil(b"404")
    writer.write(b"x")  # a sign of life, which must not be enough
    assert b"200" not in await rest_of(reader)
    writer.close()


async def test_a_refused_body_that_comes_whole_leaves_its_connection_in_use(
    world: GatewayWorld,
) -> None:
    reader, writer = await asyncio.open_connection(*host_and_port(world))
    writer.write(b"POST /none HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{")
    await reader.readuntil(b"404")
    writer.write(b"xxGET /health HTTP/1.1\r\nhost: a\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 60)
    writer.close()


async def test_a_client_that_takes_nothing_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_S", 0.5)
    async with gateway_world(tmp_path, max_requests=1) as world, world.http() as http:
        with socket.create_connection(host_and_port(world)) as unread:
            unread.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n" * 2000)
            seen: set[int] = set()
            while seen != {200, 429}:  # it holds the only place, and then no more
                status = (await http.get("/v1/models")).status_code
                seen = seen | {status} if 429 in seen or status == 429 else seen


async def test_more_connections_than_there_is_room_for_are_closed(tmp_path: Path) -> None:
    async with gateway_world(tmp_path, max_connections=1) as world, world.http() as http:
        assert (await http.get("/health")).status_code == 200
        reader, writer = await asyncio.open_connection(*host_and_port(world))
        assert await rest_of(reader) == b""
        writer.close()
        assert (await http.get("/health")).status_code == 200


async def test_there_are_files_enough_for_all_connections(tmp_path: Path) -> None:
    """Most shells allow 1,024; without a file a connection cannot even be refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        async with gateway_world(tmp_path, max_connections=1500):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(1500, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_pages_of_other_origins_may_not_call_unless_they_are_named(tmp_path: Path) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-a"}
    named = ("https://chat.example.com",)
    async with gateway_world(tmp_path, cors_origins=named) as world, world.http() as http:
        for origin, allowed in ((named[0], named[0]), ("https://other.example.com", None)):
            sent = {"origin": origin}
            before = await http.options(CHAT, headers={**sent, **asked})
            after = await http.post(CHAT, json=HELLO, headers=sent)
            for answer in (before, after):
                assert allowed == answer.headers.get("access-control-allow-origin")
                assert "access-control-allow-credentials" not in answer.headers
            assert before.headers.get("access-control-allow-headers") == "x-a"


async def test_a_page_is_told_that_there_is_too_much_at_once(tmp_path: Path) -> None:
    chat = ScriptedChat([text_frame("Hello")], hold=True)
    async with (
        gateway_world(tmp_path, chat=chat, max_requests=1, cors_origins=("*",)) as world,
        world.http() as http,
        http.stream("POST", CHAT, json={**HELLO, "stream": True}),
    ):
        answer = await http.get("/v1/models", headers={"origin": "https://any.example.com"})
    assert answer.status_code == 429
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "retry-after" in answer.headers["access-control-expose-headers"]


async def test_no_page_of_another_origin_may_call_by_default(world: GatewayWorld) -> None:
    async with world.http() as http:
        answer = await http.get("/v1/models", headers={"origin": "https://any.example.com"})
        asked = {"origin": "https://a.example.com", "access-control-request-method": "POST"}
        assert (await http.options(CHAT, headers=asked)).status_code == 405
    assert "access-control-allow-origin" not in answer.headers


async def test_a_taken_address_is_told_in_one_line(tmp_path: Path) -> None:
    async with gateway_world(tmp_path) as world:
        with pytest.raises(AppError, match="is in use"):
            async with gateway_world(tmp_path / "other", public_address=world.address):
                pass
