"""Replies as they come: streamed, stopped, asked again, edited, and when something fails."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from playwright.sync_api import Route, expect

from tests.page.person import Person, wait_until
from tests.page.scripted import COUNT, COUNT_ONCE, PageModel

ANSWER = re.compile(r"That is answer number \d+\.")


def test_a_reply_tells_its_tier_its_model_and_its_times(person: Person) -> None:
    assert ANSWER.fullmatch(person.say("Hello there"))
    facts = person.reply.locator(".facts").inner_text()
    pattern = r"(instant|fast|standard) · \S*tiny\S* · first text [\d.]+ m?s · total [\d.]+ m?s.*"
    assert re.fullmatch(pattern, facts), facts


def test_why_tells_what_was_chosen_and_tried(person: Person) -> None:
    person.say("Hello again")
    person.press("Why?")
    why = person.reply.locator(".why")
    for name in ("Chosen", "Kind", "Tried", "Times", "Tokens", "Trace"):
        expect(why.locator("dt", has_text=name)).to_be_visible()
    expect(why).to_contain_text("answered")


def test_text_is_shown_while_it_is_written_and_stop_stops_it(
    person: Person, model: PageModel
) -> None:
    model.hung_up.clear()
    person.send(COUNT)
    expect(person.reply.locator(".text")).to_contain_text("one and on and on")
    expect(person.reply).to_have_attribute("aria-busy", "true")
    person.page.get_by_role("button", name="Stop").click()
    expect(person.reply).to_contain_text("Stopped.")
    wait_until(model.hung_up.is_set)
    assert ANSWER.fullmatch(person.say("And now?"))


def test_another_reply_does_not_store_the_question_twice(person: Person, model: PageModel) -> None:
    first = person.say("What do foxes eat?")
    person.press("Regenerate")
    expect(person.reply).to_contain_text("2 of 2")
    second = person.whole()
    assert first != second
    person.has_stored("What do foxes eat?", first, second)
    person.press("Reply before")
    expect(person.reply.locator(".text")).to_have_text(first)
    person.say("Go on from there.")
    assert first in model.conversation
    assert second not in model.conversation
    person.page.reload()
    expect(person.turns.first.locator(".reply .text")).to_have_text(first)


def test_a_message_can_be_asked_again_after_a_reload(person: Person) -> None:
    first = person.say("What do badgers eat?")
    person.page.reload()
    person.press("Regenerate")
    expect(person.reply).to_contain_text("2 of 2")
    person.has_stored("What do badgers eat?", first, person.whole())


def test_an_edited_message_is_forgotten_as_it_was(person: Person, model: PageModel) -> None:
    first = person.say("I was born in Rostock.")
    person.press("Edit")
    expect(person.text).to_have_value("I was born in Rostock.")
    person.text.fill("I was born in Riga.")
    person.text.press("Enter")
    expect(person.turns.last.locator(".user .text")).to_have_text("I was born in Riga.")
    second = person.whole()
    expect(person.turns).to_have_count(1)
    person.has_stored("", "", "I was born in Riga.", second)
    remembered = person.remembered("Where was I born?")
    assert "I was born in Riga." in remembered
    assert "I was born in Rostock." not in remembered
    person.say("What else do you know?")
    assert "Rostock" not in model.prompt
    assert first not in model.prompt
    assert all(each["content"] for each in model.requests[-1]["messages"])


def test_an_edit_can_be_given_up(person: Person) -> None:
    told = person.say("I have a cat.")
    person.press("Edit")
    person.text.press("Escape")
    expect(person.text).to_have_value("")
    expect(person.page.locator("#editing")).to_be_hidden()
    person.has_stored("I have a cat.", told)


def test_a_lost_replica_does_not_lose_the_reply(person: Person, data: Path) -> None:
    person.send(COUNT_ONCE)
    expect(person.reply.locator(".text")).to_contain_text("one and on")
    os.kill(process_of("routing", data), signal.SIGKILL)
    expect(person.reply.locator(".text")).to_have_text(ANSWER)
    person.has_stored(COUNT_ONCE, person.whole())


def test_a_refusal_is_told_in_words_and_can_be_tried_again(person: Person) -> None:
    def refuse(route: Route) -> None:
        told = json.dumps({"error": {"code": "overloaded", "message": "full"}})
        route.fulfill(status=429, headers={"retry-after": "7"}, body=told)

    person.page.route("**/api/reply", refuse, times=1)
    person.send("Is anybody there?")
    expect(person.reply.locator(".error")).to_have_text("The mesh is busy. Try again in 7 s.")
    person.press("Try again")
    expect(person.reply.locator(".text")).to_have_text(ANSWER)
    person.has_stored("Is anybody there?", person.whole())


def test_a_connection_that_breaks_is_made_anew(person: Person) -> None:
    person.page.route("**/api/reply", lambda route: route.abort("connectionreset"), times=1)
    told = person.say("Can you hear me?")
    assert ANSWER.fullmatch(told)
    person.has_stored("Can you hear me?", told)


def test_conversations_are_listed_opened_and_deleted(person: Person) -> None:
    person.say("This is about the harbour.")
    person.begin_anew()
    person.say("This is about the lighthouse.")
    side = person.page.locator("#side")
    expect(side.get_by_text("This is about the lighthouse.")).to_be_visible()
    harbour = side.get_by_role("button", name="This is about the harbour.", exact=True)
    harbour.click()
    expect(harbour).to_have_attribute("aria-current", "true")
    expect(person.turns.first.locator(".user .text")).to_have_text("This is about the harbour.")
    delete = side.get_by_role("listitem").filter(has_text="the harbour").get_by_text("×")
    delete.click()
    side.get_by_text("Delete?").click()
    expect(side.get_by_text("This is about the harbour.")).to_have_count(0)
    expect(person.turns).to_have_count(0)
    assert "This is about the harbour." not in person.remembered("harbour")


def process_of(service: str, data: Path) -> int:
    """The process of a service of this mesh."""
    up = json.loads((data / "mesh.json").read_text())["pid"]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_text().split("\0")
        except OSError:
            continue  # it ended meanwhile
        if parent == up and f"services.{service}" in command:
            return int(path.parent.name)
    raise AssertionError(f"{service} is not running")
