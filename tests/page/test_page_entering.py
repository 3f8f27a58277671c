"""Signing in and out, what a reload keeps, and what the page may do at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integrations.real_mesh import Gateway
from tests.page.person import Person, wait_until
from tests.page.scripted import MARKUP, TAGS


def test_up_says_where_the_page_is(gateway: Gateway, data: Path) -> None:
    log = data.parent / "up.log"
    wait_until(lambda: f"In a browser: {gateway.url}/\n" in log.read_text())


@pytest.mark.parametrize("key", ["wrong", "not a key", "sésame"])
def test_a_wrong_key_is_refused_in_words(page: Page, gateway: Gateway, key: str) -> None:
    page.goto(gateway.url)
    page.get_by_label("API key").fill(key)
    page.get_by_label("API key").press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text(re.compile("refused|no API key"))
    expect(page.locator("#app")).to_be_hidden()


def test_signing_out_leaves_nothing_of_the_key(person: Person) -> None:
    person.say("Hello")
    person.page.get_by_role("button", name="Sign out").click()
    expect(person.page.get_by_label("API key")).to_be_visible()
    assert person.page.evaluate("sessionStorage.length + localStorage.length") == 0
    assert person.page.evaluate("document.cookie") == ""
    assert person.key not in person.page.content()


def test_a_key_that_is_no_good_any_more_leads_back_to_signing_in(person: Person) -> None:
    person.page.evaluate("sessionStorage.setItem('echomesh.key', 'revoked')")
    person.page.reload()
    expect(person.page.get_by_label("API key")).to_be_visible()
    expect(person.page.get_by_role("alert").first).to_contain_text("refused")


def test_another_tab_must_sign_in_by_itself(person: Person) -> None:
    other = person.page.context.new_page()
    other.goto(person.url)
    expect(other.get_by_label("API key")).to_be_visible()


def test_a_reload_keeps_the_conversation_and_what_is_known_of_its_reply(person: Person) -> None:
    told = person.say("I keep a kayak in Whitby.")
    facts = person.reply.locator(".facts")
    expect(facts).to_contain_text("first text")
    before = facts.inner_text().split(" · ")
    person.page.reload()
    expect(person.reply.locator(".text")).to_have_text(told)
    expect(facts).to_contain_text("first text")
    assert before[:3] == facts.inner_text().split(" · ")[:3]  # tier, model, first text


def test_markup_of_anybody_stays_text(person: Person) -> None:
    person.say(TAGS)
    expect(person.turns.last.locator(".user .text")).to_have_text(TAGS)
    assert TAGS in person.say(MARKUP)
    person.page.get_by_role("button", name="Memories").click()
    expect(person.page.locator("#memory-list .memory-text", has_text=TAGS).first).to_be_visible()
    assert person.page.locator("#app img, dialog img, #app script").count() == 0
    assert person.page.title() == "Echomesh"


def test_what_would_be_injected_does_not_run(browser: Browser, gateway: Gateway) -> None:
    """The policy is in force: a defect that made markup of text would still run nothing."""
    tab = browser.new_page()
    tab.goto(gateway.url)
    refused = tab.evaluate(
        """async () => {
          const refused = [];
          document.addEventListener("securitypolicyviolation", (event) =>
            refused.push(event.effectiveDirective));
          const attempts = [
            () => { document.body.innerHTML = "<b>x</b>"; },
            () => document.body.setAttribute("onclick", "document.title = 'owned'"),
            () => document.body.setAttribute("style", "display: none"),
            () => { document.createElement("script").textContent = "document.title = 'owned'"; },
          ];
          for (const attempt of attempts) {
            try { attempt(); } catch { /* it is told as a violation too */ }
          }
          document.body.click();
          await fetch("http://127.0.0.1:9/").catch(() => {});
          await new Promise((resolve) => setTimeout(resolve));
          return refused;
        }"""
    )
    assert set(refused) >= {"require-trusted-types-for", "style-src-attr", "connect-src"}
    assert refused.count("require-trusted-types-for") == 3
    assert tab.title() == "Echomesh"
    tab.close()


def test_a_phone_shows_everything_without_scrolling_sideways(person: Person) -> None:
    page = person.page
    page.set_viewport_size({"width": 360, "height": 740})

    def check() -> None:
        widths = "[document.documentElement.scrollWidth, ...[...document.querySelectorAll("
        widths += "'#scroll, dialog[open], header, #composer')].map(e => e.scrollWidth)]"
        assert max(page.evaluate(widths)) <= 360

    person.say("I live at " + "x" * 300)
    person.press("Why?")
    expect(person.reply.locator(".why")).to_be_visible()
    check()
    page.get_by_role("button", name="Chats").click()
    expect(page.get_by_role("button", name="New conversation")).to_be_visible()
    check()
    page.get_by_role("button", name="Chats").click()
    page.get_by_role("button", name="Memories").click()
    expect(page.locator("#memory-list .memory").first).to_be_visible()
    check()


def test_everything_can_be_done_by_keyboard(page: Page, gateway: Gateway) -> None:
    page.goto(gateway.url)
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(gateway.key)
    page.keyboard.press("Enter")
    person = Person(page, gateway.url, gateway.key)
    expect(person.text).to_be_focused()
    page.keyboard.type("one line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("and another")
    page.keyboard.press("Enter")
    expect(person.turns).to_have_count(1)
    person.whole()
    expect(person.turns.last.locator(".user .text")).to_have_text("one line\nand another")
    expect(person.text).to_be_focused()
    why = person.reply.get_by_role("button", name="Why?")
    for _ in range(10):
        page.keyboard.press("Shift+Tab")
        if why.evaluate("it => it === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(person.reply.locator(".why")).to_be_visible()
    expect(why).to_be_focused()
    page.get_by_role("button", name="Memories").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#memories")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#memories")).to_be_hidden()


def test_every_control_has_a_name(person: Person) -> None:
    person.say("I have a name.")
    nameless = person.page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, dialog')]"
        ".filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length"
        " || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"
    )
    assert nameless == []
