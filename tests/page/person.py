"""A person in front of the page: what they press and what they see."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect


@dataclass(frozen=True)
class Person:
    """Somebody with a key, and a browser's tab."""

    page: Page
    url: str
    key: str

    def sign_in(self) -> None:
        """Come to the page by the gateway's address and sign in."""
        self.page.goto(f"{self.url}/")
        self.page.get_by_label("API key").fill(self.key)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.text).to_be_visible()

    @property
    def text(self) -> Locator:
        """Where a message is written."""
        return self.page.locator("#text")

    @property
    def turns(self) -> Locator:
        """The messages with their replies, in order."""
        return self.page.locator("#thread .turn")

    @property
    def reply(self) -> Locator:
        """The newest reply."""
        return self.turns.last.locator("article.reply")

    def send(self, text: str) -> None:
        """Send a message; the reply has begun."""
        before = self.turns.count()
        self.text.fill(text)
        self.text.press("Enter")
        expect(self.turns).to_have_count(before + 1)

    def say(self, text: str) -> str:
        """Send a message and return the text of its whole reply."""
        self.send(text)
        return self.whole()

    def ask_memory(self, question: str) -> None:
        """Ask in a new conversation, again if memory was late: a busy machine's replies say so."""
        for _ in range(5):
            self.begin_anew()
            self.say(question)
            if "without" not in self.reply.locator(".facts").inner_text():
                return
        raise AssertionError("memory was late five times")

    def whole(self) -> str:
        """The text of the newest reply once it is complete."""
        expect(self.page.locator("#stop")).to_be_hidden()
        expect(self.reply).to_have_attribute("aria-busy", "false")
        return self.reply.locator(".text").inner_text()

    def press(self, name: str) -> None:
        """Press a button below the newest turn."""
        self.turns.last.get_by_role("button", name=name, exact=True).click()

    def begin_anew(self) -> None:
        """Begin a new conversation."""
        self.page.get_by_role("button", name="New conversation").click()
        expect(self.turns).to_have_count(0)

    def memory(self, text: str) -> Locator:
        """A memory in the list of the newest reply, which is opened."""
        details = self.reply.locator("details.used")
        if details.get_attribute("open") is None:
            details.locator("summary").first.click()
        return details.locator(".memory", has_text=text)

    @property
    def conversation_id(self) -> str:
        """Which conversation is open."""
        return str(self.page.evaluate("sessionStorage.getItem('echomesh.conversation')"))

    def has_stored(self, *texts: str) -> None:
        """Wait until the open conversation is stored as these texts, oldest first."""
        query = urllib.parse.urlencode({"conversation_id": self.conversation_id})

        def stored() -> list[str]:
            messages = self.api(f"messages?{query}")["messages"]
            return [each["text"] for each in messages[::-1]]

        # Where memory is late, a reply is shown before it is stored.
        wait_until(lambda: stored() == list(texts), stored)

    def remembered(self, query: str) -> list[str]:
        """The texts of the memories that fit a query."""
        hits = self.api("memories/recall", {"query": query})["hits"]
        return [hit["memory"]["text"] for hit in hits]

    def api(self, path: str, body: Any = None) -> Any:
        """Call what the page calls, beside it."""
        headers = {"authorization": f"Bearer {self.key}"}
        method = "GET" if body is None else "POST"
        address = f"{self.url}/chat/api/{path}"
        answer = httpx.request(method, address, headers=headers, json=body, timeout=60.0)
        return answer.raise_for_status().json()


def wait_until(condition: Callable[[], bool], seen: Callable[[], Any] = lambda: "") -> None:
    """Wait for something that happens beside the page; `seen` tells what is there instead."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, seen()
        time.sleep(0.05)
