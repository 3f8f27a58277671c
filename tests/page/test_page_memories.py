"""What a reply remembered and why; forgetting, correcting, and leaving no trace."""

from __future__ import annotations

import re

from playwright.sync_api import Route, expect

from tests.page.person import Person
from tests.page.scripted import PageModel


def test_a_reply_shows_the_memories_it_used_and_why(person: Person, model: PageModel) -> None:
    person.say("My locker code is 4711.")
    person.ask_memory("What is my locker code?")
    assert "4711" in model.prompt
    memory = person.memory("My locker code is 4711.")
    expect(memory).to_contain_text(re.compile(r"\d+ \w+ \d{4} · score \d\.\d\d"))
    expect(memory).to_contain_text("the reply rests on it")
    expect(memory.locator(".scores")).to_contain_text(re.compile(r"same words \d\.\d\d"))


def test_what_is_forgotten_is_not_recalled(person: Person, model: PageModel) -> None:
    person.say("My garage code is 8024.")
    person.ask_memory("What is my garage code?")
    memory = person.memory("My garage code is 8024.")
    memory.get_by_role("button", name="Forget").click()
    memory.get_by_text("Really forget?").click()
    expect(person.reply.locator("details.used")).to_contain_text("Forgotten.")
    person.ask_memory("Tell me my garage code.")
    assert "8024" not in model.prompt
    assert "My garage code is 8024." not in person.remembered("garage code")
    person.page.reload()
    expect(person.turns).to_have_count(1)
    assert "8024" not in person.page.locator("#app").inner_text()


def test_a_question_stays_while_more_is_shown_around_it(person: Person) -> None:
    """The parts of the scores come later than the memories; a press in between counts."""
    person.say("My shed key hangs by the door.")
    person.ask_memory("Where does my shed key hang?")
    held: list[Route] = []
    person.page.route("**/api/memories/recall", lambda route: held.append(route))
    with person.page.expect_request("**/api/memories/recall"):
        memory = person.memory("My shed key hangs by the door.")
    memory.get_by_role("button", name="Forget").click()
    expect(memory.get_by_text("Really forget?")).to_be_focused()
    held[0].continue_()
    expect(memory.locator(".scores")).to_be_visible()
    expect(memory.get_by_text("Really forget?")).to_be_focused()
    person.text.focus()
    expect(memory.get_by_text("Really forget?")).to_have_count(0)
    expect(memory.get_by_text("Forget")).to_be_visible()


def test_of_a_corrected_memory_the_newer_text_is_used(person: Person, model: PageModel) -> None:
    person.say("My bicycle stands in the cellar.")
    person.ask_memory("Where is my bicycle?")
    person.memory("the cellar").get_by_role("button", name="Correct").click()
    text = person.page.get_by_label("What is so")
    expect(text).to_have_value("My bicycle stands in the cellar.")
    text.fill("My bicycle stands in the attic.")
    person.page.get_by_role("button", name="Save").click()
    expect(person.memory("the attic")).to_be_visible()
    person.ask_memory("Where does my bicycle stand?")
    assert "the attic" in model.prompt
    assert "the cellar" not in model.prompt


def test_a_memory_that_was_changed_elsewhere_is_not_overwritten(person: Person) -> None:
    person.say("My canoe is red.")
    person.ask_memory("What colour is my canoe?")
    person.memory("My canoe is red.").get_by_role("button", name="Correct").click()
    text = person.page.get_by_label("What is so")
    expect(text).to_have_value("My canoe is red.")
    elsewhere = person.page.evaluate(
        """async (key) => {
          const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
          const found = await fetch("api/memories/recall", {
            method: "POST", headers, body: JSON.stringify({ query: "canoe red" }) });
          const hit = (await found.json()).hits.find((e) => e.memory.text === "My canoe is red.");
          const body = { request_id: "e1", text: "My canoe is blue.", expected_version: 1 };
          const done = await fetch(`api/memories/${hit.memory.id}`, {
            method: "PATCH", headers, body: JSON.stringify(body) });
          return done.status;
        }""",
        person.key,
    )
    assert elsewhere == 200
    text.fill("My canoe is green.")
    person.page.get_by_role("button", name="Save").click()
    expect(person.page.locator("#correct-error")).to_contain_text("changed elsewhere")
    expect(text).to_have_value("My canoe is blue.")


def test_a_private_conversation_leaves_nothing_behind(person: Person, model: PageModel) -> None:
    person.say("My parrot is called Pip.")
    listed = len(person.api("conversations?page_size=100")["conversations"])
    person.page.get_by_role("switch", name="Private").check()
    expect(person.page.locator("#private-note")).to_be_visible()
    person.say("My secret word is marmalade.")
    expect(person.reply.locator(".facts")).to_contain_text("not stored")
    person.say("What is my parrot called?")
    assert "marmalade" in model.prompt  # it follows this conversation
    assert "Pip" not in model.prompt  # and recalls nothing
    expect(person.reply.locator("details.used")).to_have_count(0)
    person.press("Why?")
    expect(person.reply.locator(".why")).to_be_visible()
    assert len(person.api("conversations?page_size=100")["conversations"]) == listed
    assert not any("marmalade" in text for text in person.remembered("secret word marmalade"))
    person.page.get_by_role("switch", name="Private").uncheck()
    expect(person.turns).to_have_count(0)
    person.say("What is my secret word?")
    assert "marmalade" not in model.prompt


def test_memories_are_searched_and_forgotten_in_their_list(person: Person) -> None:
    person.say("My sister plays the oboe.")
    person.page.get_by_role("button", name="Memories").click()
    person.page.get_by_label("Search").fill("Which instrument does my sister play?")
    person.page.get_by_label("Search").press("Enter")
    found = person.page.locator("#memory-list .memory", has_text="My sister plays the oboe.")
    expect(found).to_contain_text(re.compile(r"score \d"))
    found.get_by_role("button", name="Forget").click()
    found.get_by_text("Really forget?").click()
    expect(person.page.locator("#memories-status")).to_have_text("Forgotten.")
    person.page.get_by_role("button", name="Close").click()
    expect(person.turns.locator(".user", has_text="oboe")).to_have_count(0)
    assert "My sister plays the oboe." not in person.remembered("oboe")
