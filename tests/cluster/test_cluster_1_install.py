"""Installed from nothing: tested by Helm, chatted with from inside and through forwarded ports."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import get_args

import httpx
import openai
import pytest

import echomesh
from tests.cluster.conftest import JAEGER, SERVICES
from tests.cluster.kube import INSTALL_S, ROOT, CommandFailed, Namespace, run, until
from tests.cluster.load import chatting
from tests.cluster.tracing import callers
from tests.support.policies import Direction, edges

pytestmark = pytest.mark.asyncio(loop_scope="session")
LOOPBACK = "127.0.0.2"
GATEWAY = f"http://{LOOPBACK}:7405"


async def test_helm_test_chats_and_recalls(mesh: Namespace) -> None:
    said = await mesh.helm("test", "echomesh", "--logs", f"--timeout={INSTALL_S}s")
    assert "recalled" in said


async def test_people_chat_from_inside_the_cluster(mesh: Namespace) -> None:
    async with chatting(mesh, "inside") as load:
        await load.is_whole()
    await load.assert_promises(mesh)


async def test_the_sample_history_is_imported_and_asked_about_through_forwarded_ports(
    mesh: Namespace,
) -> None:
    """By the command, as docs/kubernetes.md says, and by the SDK."""
    key = (await mesh.secret("echomesh-credentials"))["api_key"]
    address = f"{LOOPBACK}:7400"
    environment = {**os.environ, "ECHOMESH_API_KEY": key}

    async def command(*words: str, given: str = "") -> str:
        whole = (sys.executable, "-m", "services.cli", *words, "--address", address)
        return await run(*whole, given=given, environment=environment, timeout_s=INSTALL_S)

    async with mesh.forwarded(LOOPBACK, ("routing", "auth", "memory")):
        told = await command("import", str(ROOT / "examples/history.jsonl"))
        assert told.startswith("334 stored, 0 there already, 0 not valid; 334 memories indexed")
        question = "What is the code for my locker?\n"
        assert "4719" in await command("chat", "--speaker", "Maya", given=question)
        async with echomesh.Client(address, api_key=key, forwarded=True, timeout_s=60) as client:
            text, final = await client.reply("Where do I live now?", speaker="Maya")
        assert "Bristol" in text
        assert final.degraded == ()


async def test_an_openai_client_chats_and_is_remembered_through_the_gateway(
    mesh: Namespace,
) -> None:
    key = (await mesh.secret("echomesh-credentials"))["api_key"]

    async def say(client: openai.AsyncOpenAI, text: str) -> str:
        told = await client.chat.completions.create(
            model="echomesh", messages=[{"role": "user", "content": text}], user="gateway-guest"
        )
        return told.choices[0].message.content or ""

    async with (
        mesh.forwarded(LOOPBACK, ("gateway",)),
        openai.AsyncOpenAI(base_url=f"{GATEWAY}/v1", api_key=key) as client,
    ):
        await say(client, "My bicycle is called Rosinante.")
        assert "Rosinante" in await say(client, "What is my bicycle called?")
        assert "echomesh" in [model.id async for model in client.models.list()]
        embedded = await client.embeddings.create(model="echomesh", input=["a bicycle"])
        assert len(embedded.data[0].embedding) > 100


async def test_the_gateway_serves_the_page_and_what_the_page_asks(mesh: Namespace) -> None:
    key = (await mesh.secret("echomesh-credentials"))["api_key"]
    async with (
        mesh.forwarded(LOOPBACK, ("gateway",)),
        httpx.AsyncClient(base_url=GATEWAY, timeout=60) as browser,
    ):
        page = await browser.get("/", follow_redirects=True)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        refused = await browser.get("/chat/api/conversations")
        bearer = {"authorization": f"Bearer {key}"}
        listed = await browser.get("/chat/api/conversations", headers=bearer)
    assert refused.status_code == 401
    assert listed.json()["conversations"]


async def test_every_pod_runs_restricted_and_without_rights_in_the_cluster(
    mesh: Namespace,
) -> None:
    """The namespace enforces `restricted`, so they could not run otherwise."""
    for service in SERVICES:
        for pod in await mesh.ready(service):
            program = "import os; print(os.getuid(), os.access('/', os.W_OK), os.listdir('/keys'))"
            uid, writable, keys = (await mesh.python(pod, program)).split(" ", 2)
            assert (uid, writable) == ("65532", "False")
            assert f"{service}.key" in keys
            account = f"system:serviceaccount:{mesh.name}:echomesh-{service}"
            with pytest.raises(CommandFailed):
                await mesh.kubectl("auth", "can-i", "get", "secrets", "--as", account)


async def test_the_last_ready_pod_of_a_service_is_not_evicted(mesh: Namespace) -> None:
    (pod,) = await mesh.ready("embeddings")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": mesh.name},
    }
    path = f"/api/v1/namespaces/{mesh.name}/pods/{pod}/eviction"
    with pytest.raises(CommandFailed, match="disruption budget"):
        await mesh.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    assert await mesh.ready("embeddings") == [pod]


@pytest.mark.skipif(not JAEGER, reason="needs CLUSTER_JAEGER or ECHOMESH_JAEGER_BINARY")
async def test_policies_allow_exactly_the_calls_that_traces_show(mesh: Namespace) -> None:
    """Since the install: fetched keys, chats, an import and questions. Both ends allow each."""
    policies = (await mesh.get("networkpolicies"))["items"]
    allowed = {
        direction: {(a, b) for a, b, port in edges(policies, direction) if port == "mesh"}
        for direction in get_args(Direction)
    }

    async def seen() -> bool:
        return await callers(mesh) >= allowed["Egress"]

    with contextlib.suppress(AssertionError):
        await until(seen, "every edge in a trace")
    assert await callers(mesh) == allowed["Egress"] == allowed["Ingress"]
