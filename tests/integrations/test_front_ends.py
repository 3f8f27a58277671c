"""Open WebUI and SillyTavern: the calls that they make, one by one. docs/integrations.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integrations.real_mesh import Gateway

# What Open WebUI sends beside the messages.
OPEN_WEBUI: dict[str, Any] = {"model": "echomesh", "stream": True}
# What SillyTavern sends to a custom source with its default preset.
SILLY_TAVERN: dict[str, Any] = {
    "model": "echomesh",
    "temperature": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "top_p": 1,
    "max_tokens": 300,
    "stream": True,
    "stop": [],
    "logit_bias": {},
}


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=60.0) as client:
        yield client


def said(answer: httpx.Response) -> tuple[str, dict[str, Any]]:
    """The text of a stream, and what its last chunk tells of the mesh."""
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    return text, chunks[-1]["echomesh"]


def chat(http: httpx.Client, shape: dict[str, Any], *texts: str, **headers: str) -> Any:
    """Say the last of `texts`; those before are the conversation so far."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    body = {**shape, "messages": messages}
    return said(http.post("/chat/completions", json=body, headers=headers))


@pytest.mark.parametrize("shape", [OPEN_WEBUI, SILLY_TAVERN], ids=["open-webui", "silly-tavern"])
def test_a_connection_is_looked_at_and_a_reply_is_streamed(
    http: httpx.Client, shape: dict[str, Any]
) -> None:
    assert "echomesh" in [each["id"] for each in http.get("/models").json()["data"]]
    text, about = chat(http, shape, "Hello, who are you?")
    assert (text, about["message_stored"]) == ("Hello there", "stored")


def test_a_regenerated_reply_answers_the_message_that_is_stored(http: httpx.Client) -> None:
    texts = ("Do you know the sea?", "Hello there", "Tell me of its tides.")
    _, first = chat(http, SILLY_TAVERN, *texts)
    _, again = chat(http, SILLY_TAVERN, *texts)
    assert first["message_id"] == again["message_id"]
    assert first["reply_id"] != again["reply_id"]


def test_a_growing_conversation_is_stored_once(http: httpx.Client) -> None:
    chat_id = {"x-openwebui-chat-id": "growing", "x-openwebui-user-id": "grower"}
    _, one = chat(http, OPEN_WEBUI, "I keep bees.", **chat_id)
    _, two = chat(http, OPEN_WEBUI, "I keep bees.", "Hello there", "Two hives.", **chat_id)
    assert one["conversation_id"] == two["conversation_id"] == "growing"
    recalled = chat(http, OPEN_WEBUI, "What do I keep?", "x", "Which animals do I keep?", **chat_id)
    assert recalled[1]["message_stored"] == "stored"


def test_people_of_one_open_webui_share_no_memory(http: httpx.Client, gateway: Gateway) -> None:
    ann, bob = {"x-openwebui-user-id": "ann"}, {"x-openwebui-user-id": "bob"}
    chat(http, OPEN_WEBUI, "My locker code is 4711.", **ann)
    chat(http, OPEN_WEBUI, "What is my locker code?", **ann)
    assert "4711" in _system_prompt(gateway)
    chat(http, OPEN_WEBUI, "What is my locker code?", **bob)
    assert "4711" not in _system_prompt(gateway)


def test_a_title_for_a_chat_is_not_remembered(http: httpx.Client) -> None:
    task = (
        "### Task:\nGenerate a concise title.\n<chat_history>\nUSER: I keep bees.\n</chat_history>"
    )
    _, about = chat(http, OPEN_WEBUI, task)
    assert (about["message_stored"], about["reply_stored"]) == ("not_stored", "not_stored")


def test_a_character_card_is_the_character_that_answers(
    http: httpx.Client, gateway: Gateway
) -> None:
    messages = [
        {"role": "system", "content": "Write Mary's next reply. Mary is a sailor."},
        {"role": "system", "content": "[Start a new Chat]"},
        {"role": "assistant", "content": "*Mary waves* Ahoy!"},
        {"role": "user", "content": "Where do we sail?"},
        {"role": "system", "content": "Stay in character."},
    ]
    answer = http.post("/chat/completions", json={**SILLY_TAVERN, "messages": messages})
    assert said(answer)[0] == "Hello there"
    prompt = [each["content"] for each in gateway.model.requests[-1]["messages"]]
    assert prompt[0].startswith("Write Mary's next reply.")
    assert "Stay in character." in prompt[0]
    assert prompt[1:] == ["*Mary waves* Ahoy!", "Where do we sail?"]


def test_curl_gets_a_stream(gateway: Gateway) -> None:
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "Hello"}]})
    command = [
        "curl",
        "-sN",
        "--max-time",
        "60",
        f"{gateway.base_url}/chat/completions",
        "-d",
        body,
    ]
    command += ["-H", f"Authorization: Bearer {gateway.key}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '"content":"Hello' in told
    assert told.rstrip().endswith("data: [DONE]")


def _system_prompt(gateway: Gateway) -> str:
    """What the model was told last, before the conversation itself."""
    return str(gateway.model.requests[-1]["messages"][0]["content"])
