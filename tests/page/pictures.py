"""`python -m tests.page.pictures`: the pictures of docs/page.md, of the sample that ships.

Nothing in them is scripted: the sample history is imported, and the extractive responder answers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

from tests.integrations.real_mesh import ECHOMESH, ROOT
from tests.page.person import Person

IMAGES = ROOT / "docs" / "images"
START_S = 300.0
DESKTOP: Any = {"width": 1000, "height": 720}
PHONE: Any = {"width": 360, "height": 740}
QUESTIONS = ("Which nuts am I allergic to?", "Where do I live now?")


def main() -> None:
    """Take both pictures."""
    expect.set_options(timeout=90_000)
    chromium = shutil.which("chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sample_mesh(Path(folder) / "data") as person:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--font-render-hinting=none"]
            )
            take(browser, person, DESKTOP, "page-desktop.png")
            take(browser, person, PHONE, "page-phone.png", dark=True)
            browser.close()


def take(
    browser: Browser, access: tuple[str, str], size: Any, name: str, *, dark: bool = False
) -> None:
    """Ask, look at why, and take a picture of it."""
    url, key = access
    context = browser.new_context(
        viewport=size, locale="en-GB", color_scheme="dark" if dark else "light"
    )
    person = Person(context.new_page(), url, key)
    person.sign_in()
    for question in QUESTIONS:
        person.say(question)
    person.memory("")
    expect(person.reply.locator(".scores").first).to_be_visible()
    if not dark:
        person.press("Why?")
        expect(person.reply.locator(".why")).to_be_visible()
    person.turns.last.evaluate("it => it.scrollIntoView()")
    person.page.screenshot(path=IMAGES / name)
    context.close()


@contextmanager
def sample_mesh(data: Path) -> Iterator[tuple[str, str]]:
    """The mesh of `make run`: its address, and its first key."""
    command = [str(ECHOMESH), "up", "--sample", "--data", str(data), "--port-base", "31400"]
    log = data.parent / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    try:
        ends = time.monotonic() + START_S
        while "Ctrl-C" not in log.read_text():
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(log.read_text()[-3000:])
            time.sleep(0.2)
        url = json.loads((data / "mesh.json").read_text())["http"]
        yield url, json.loads((data / "credentials.json").read_text())["api_key"]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


if __name__ == "__main__":
    main()
