"""The chat page's files and its interface over real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from echomesh.memory.v1 import conversation_pb2, memory_pb2
from echomesh.routing.v1 import routing_pb2
from services.gateway.page import files
from services.runtime.deadline import remaining_s
from services.runtime.errors import AppError, Reason, not_found
from services.runtime.identity import current_identity
from tests.support.gateway import (
    GatewayWorld,
    ScriptedChat,
    final_frame,
    gateway_world,
    restart_frame,
    text_frame,
)

API = "/chat/api"
HELLO = {"request_id": "r1", "conversation_id": "c1", "text": "Hello"}
MEMORY_ID = "0b0e7b8c-7c1d-4b8e-9d6a-2f8f6f1d2a3b"
FIX = {"request_id": "f1", "text": "Nine bees.", "expected_version": 1}
FILES = sorted(path.name for path in Path(files.__file__).with_name("static").iterdir())
CALLS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "session", None),
    ("POST", "reply", HELLO),
    ("GET", "why?request_id=r1", None),
    ("GET", "conversations", None),
    ("DELETE", "conversations?conversation_id=c1", None),
    ("GET", "messages?conversation_id=c1", None),
    ("GET", "memories", None),
    ("POST", "memories/recall", {"query": "bees"}),
    ("GET", f"memories/{MEMORY_ID}", None),
    ("PATCH", f"memories/{MEMORY_ID}", FIX),
    ("DELETE", f"memories/{MEMORY_ID}", None),
)


@dataclass
class Records:
    """What is stored, as stubs that answer one thing and keep what they are asked."""

    asked: list[Any] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    error: AppError | None = None
    gone: frozenset[str] = frozenset()
    memory: memory_pb2.Memory = field(
        default_factory=lambda: memory_pb2.Memory(id=MEMORY_ID, version=1, text="Ten bees.")
    )

    async def _answer(self, request: Any, answer: Any) -> Any:
        assert remaining_s() <= 10.0
        self.asked.append(request)
        self.users.append(current_identity().user_id)
        if self.error is not None:
            raise self.error
        return answer

    async def Explain(self, request: Any) -> Any:  # noqa: N802
        return await self._answer(request, routing_pb2.ExplainResponse(request_id="r1"))

    async def ListConversations(self, request: Any) -> Any:  # noqa: N802
        found = [conversation_pb2.Conversation(id=name) for name in ("c1", "c2")]
        answer = conversation_pb2.ListConversationsResponse(
            conversations=found, next_page_token="next"
        )
        return await self._answer(request, answer)

    async def ListMessages(self, request: Any) -> Any:  # noqa: N802
        if request.conversation_id in self.gone:
            raise not_found("conversation")
        message = conversation_pb2.Message(id="m1", text=f"Hello {request.conversation_id}")
        answer = conversation_pb2.ListMessagesResponse(messages=[message], next_page_token="older")
        return await self._answer(request, answer)

    async def DeleteConversation(self, request: Any) -> Any:  # noqa: N802
        answer = conversation_pb2.DeleteConversationResponse(deleted_messages=4)
        return await self._answer(request, answer)

    async def ListMemories(self, request: Any) -> Any:  # noqa: N802
        answer = memory_pb2.ListMemoriesResponse(memories=[self.memory], next_page_token="next")
        return await self._answer(request, answer)

    async def Recall(self, request: Any) -> Any:  # noqa: N802
        hit = memory_pb2.RecallHit(memory=self.memory, score=0.5)
        return await self._answer(request, memory_pb2.RecallResponse(hits=[hit]))

    async def GetMemory(self, request: Any) -> Any:  # noqa: N802
        return await self._answer(request, memory_pb2.GetMemoryResponse(memory=self.memory))

    async def UpdateMemory(self, request: Any) -> Any:  # noqa: N802
        changed = memory_pb2.Memory(id=request.memory.id, version=2, text=request.memory.text)
        return await self._answer(request, memory_pb2.UpdateMemoryResponse(memory=changed))

    async def ForgetMemory(self, request: Any) -> Any:  # noqa: N802
        return await self._answer(request, memory_pb2.ForgetMemoryResponse())


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
async def world(tmp_path: Path, records: Records) -> AsyncIterator[GatewayWorld]:
    chat = ScriptedChat([text_frame("Hello"), final_frame()])
    async with gateway_world(tmp_path, chat=chat, records=records) as running:
        yield running


async def call(http: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    return await http.request(method, f"{API}/{path}", json=body)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(part.removeprefix("data: ")) for part in answer.text.split("\n\n") if part]


@pytest.mark.parametrize("path", ["/", "/chat"])
async def test_the_gateways_address_leads_to_the_page(world: GatewayWorld, path: str) -> None:
    async with world.http(key=None) as http:
        answer = await http.get(path, follow_redirects=True)
    assert answer.url.path == "/chat/"
    assert "<title>Echomesh</title>" in answer.text


@pytest.mark.parametrize("name", ["", *FILES])
async def test_a_browser_is_kept_to_the_pages_own_files(world: GatewayWorld, name: str) -> None:
    async with world.http(key=None) as http:
        answer = await http.get(f"/chat/{name}")
    policy = dict(
        each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; ")
    )
    assert answer.status_code == 200
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("name", ["", *FILES])
async def test_a_file_is_sent_again_only_when_it_has_changed(
    world: GatewayWorld, name: str
) -> None:
    async with world.http(key=None) as http:
        first = await http.get(f"/chat/{name}")
        tag = first.headers["etag"]
        for held in (tag, f"W/{tag}", f'"other", {tag}'):
            again = await http.get(f"/chat/{name}", headers={"if-none-match": held})
            assert (again.status_code, again.content) == (304, b"")
        other = await http.get(f"/chat/{name}", headers={"if-none-match": '"other"'})
    assert other.content == first.content
    assert first.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["none.js", "..%2froutes.py", "routes.py", "static", "%00"])
async def test_there_are_no_other_files(world: GatewayWorld, name: str) -> None:
    async with world.http(key=None) as http:
        answer = await http.get(f"/chat/{name}")
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_the_page_names_no_other_origin_and_makes_no_markup_of_text() -> None:
    folder = Path(files.__file__).with_name("static")
    for path in folder.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9]", text.replace("// ", "")), path.name
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(| style="
        assert not re.search(forbidden, text), path.name
    index = (folder / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son[a-z]+=", index)
    assert set(re.findall(r'(?:src|href)="([^"]+)"', index)) <= set(FILES)


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_nothing_is_told_or_done_without_a_key(
    world: GatewayWorld, records: Records, method: str, path: str, body: Any
) -> None:
    for key in (None, "wrong"):
        async with world.http(key) as http:
            answer = await call(http, method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert records.asked == []


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_an_answer_is_the_signed_in_persons_and_no_cache_keeps_it(
    world: GatewayWorld, records: Records, method: str, path: str, body: Any
) -> None:
    async with world.http() as http:
        answer = await call(http, method, path, body)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert "set-cookie" not in answer.headers
    assert set(records.users) <= {"alice"}


async def test_a_reply_comes_as_events(world: GatewayWorld) -> None:
    async with world.http() as http:
        answer = await call(http, "POST", "reply", HELLO)
    told = events(answer)
    assert [each["type"] for each in told] == ["text", "final"]
    assert (told[0]["text"], told[1]["model"]) == ("Hello", "tiny")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_reply_that_a_whole_mesh_makes_tells_its_choice_and_its_times(
    tmp_path: Path,
) -> None:
    async with gateway_world(tmp_path) as world, world.http() as http:
        told = events(await call(http, "POST", "reply", HELLO))
        private = events(
            await call(http, "POST", "reply", {**HELLO, "request_id": "r2", "private": True})
        )
    kinds = [each["type"] for each in told]
    assert (kinds[0], kinds[-1]) == ("accepted", "final")
    assert "decision" in kinds
    assert "".join(each["text"] for each in told if each["type"] == "text") == "Hello there"
    assert told[-1]["total_ms"] >= told[-1]["first_text_ms"] >= 0
    assert (told[-1]["message_stored"], told[-1]["reply_stored"]) == ("stored", "stored")
    assert (private[-1]["message_stored"], private[-1]["reply_stored"]) == ("not_stored",) * 2
    assert len(world.memory.recalls) == 1


async def test_a_refused_reply_has_its_status(tmp_path: Path) -> None:
    busy = AppError(Reason.OVERLOADED, "full", retry_after_s=2.0)
    async with gateway_world(tmp_path, chat=ScriptedChat([busy])) as world, world.http() as http:
        answer = await call(http, "POST", "reply", HELLO)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")


async def test_a_reply_that_fails_midway_ends_with_an_error_event(tmp_path: Path) -> None:
    failed = AppError(Reason.MODEL_UNAVAILABLE, "no model is left")
    chat = ScriptedChat([text_frame("Hel"), restart_frame(), failed])
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        told = events(await call(http, "POST", "reply", HELLO))
    assert [each["type"] for each in told] == ["text", "restart", "error"]
    assert told[-1]["error"]["code"] == "model_unavailable"


async def test_a_defect_midway_is_told_without_its_text(tmp_path: Path) -> None:
    class Broken(ScriptedChat):
        async def _frames(self, script: Any) -> AsyncIterator[Any]:
            yield text_frame("Hel")
            raise RuntimeError("a secret of ours")

    async with gateway_world(tmp_path, chat=Broken([])) as world, world.http() as http:
        answer = await call(http, "POST", "reply", HELLO)
    assert events(answer)[-1]["error"]["code"] == "internal"
    assert "secret" not in answer.text


async def test_a_browser_that_goes_away_stops_the_reply(tmp_path: Path) -> None:
    chat = ScriptedChat([text_frame("Hello")], hold=True)
    async with gateway_world(tmp_path, chat=chat) as world, world.http() as http:
        async with http.stream("POST", f"{API}/reply", json=HELLO) as held:
            assert held.status_code == 200
            assert not chat.closed.is_set()
        await asyncio.wait_for(chat.closed.wait(), 60)


async def test_conversations_are_listed_with_how_they_begin(
    world: GatewayWorld, records: Records
) -> None:
    records.gone = frozenset({"c2"})
    async with world.http() as http:
        answer = await call(http, "GET", "conversations?page_size=2&page_token=t")
    told = answer.json()
    openings = [(each["id"], each["opening"]) for each in told["conversations"]]
    assert openings == [("c1", "Hello c1"), ("c2", "")]
    assert told["next_page_token"] == "next"
    assert (records.asked[0].page_size, records.asked[0].page_token) == (2, "t")


async def test_messages_come_newest_first_page_by_page(
    world: GatewayWorld, records: Records
) -> None:
    name = "any name, a/b?c=d&e"
    async with world.http() as http:
        query = {"conversation_id": name, "page_token": "t"}
        answer = await http.get(f"{API}/messages", params=query)
    assert answer.json()["next_page_token"] == "older"
    asked = records.asked[0]
    assert (asked.conversation_id, asked.page_token, asked.descending) == (name, "t", True)


async def test_a_correction_changes_the_text_alone_of_the_version_that_was_read(
    world: GatewayWorld, records: Records
) -> None:
    async with world.http() as http:
        answer = await call(http, "PATCH", f"memories/{MEMORY_ID}", FIX)
        records.error = AppError(Reason.VERSION_CONFLICT, "it changed")
        conflict = await call(http, "PATCH", f"memories/{MEMORY_ID}", FIX)
    asked = records.asked[0]
    assert (answer.json()["version"], answer.json()["text"]) == (2, "Nine bees.")
    assert (asked.expected_version, list(asked.update_mask.paths)) == (1, ["text"])
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "version_conflict")


async def test_recall_tells_why_each_memory_was_found(world: GatewayWorld) -> None:
    async with world.http() as http:
        answer = await call(http, "POST", "memories/recall", {"query": "bees", "limit": 3})
    hit = answer.json()["hits"][0]
    assert (hit["memory"]["text"], hit["score"]) == ("Ten bees.", 0.5)
    assert set(hit["scores"]) >= {"keyword", "dense", "neighbours", "recency"}


@pytest.mark.parametrize(
    ("method", "path", "body", "field_name"),
    [
        ("POST", "reply", {**HELLO, "text": ""}, "text"),
        ("POST", "reply", {**HELLO, "more": 1}, "more"),
        ("POST", "memories/recall", {"query": "x" * 8_193}, "query"),
        ("POST", "memories/recall", {"query": "x", "limit": 101}, "limit"),
        ("PATCH", f"memories/{MEMORY_ID}", {**FIX, "expected_version": 0}, "expected_version"),
        ("GET", "messages", None, "conversation_id"),
        ("GET", f"messages?conversation_id={'x' * 129}", None, "conversation_id"),
        ("GET", "messages?conversation_id=c1&page_size=0", None, "page_size"),
        ("GET", "memories?page_size=all", None, "page_size"),
        ("GET", f"memories?page_token={'x' * 1025}", None, "page_token"),
        ("GET", f"why?request_id={'x' * 65}", None, "request_id"),
        ("GET", "conversations?order=up", None, "order"),
        ("DELETE", "conversations", None, "conversation_id"),
    ],
)
async def test_what_is_not_valid_is_refused_by_the_name_of_its_field(
    world: GatewayWorld, method: str, path: str, body: Any, field_name: str
) -> None:
    async with world.http() as http:
        answer = await call(http, method, path, body)
    told = answer.json()["error"]
    assert (answer.status_code, told["param"]) == (400, field_name)


async def test_a_wrong_method_is_refused(world: GatewayWorld) -> None:
    async with world.http() as http:
        for method, path in (("PUT", "session"), ("GET", "reply"), ("PATCH", "conversations")):
            assert (await call(http, method, path)).status_code == 405


async def test_what_is_away_is_told_with_when_to_come_back(
    world: GatewayWorld, records: Records
) -> None:
    records.error = AppError(Reason.DEPENDENCY_UNAVAILABLE, "memory is away", retry_after_s=1.0)
    async with world.http() as http:
        answer = await call(http, "GET", "memories")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
