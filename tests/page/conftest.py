"""One mesh and one Chromium for all tests here; each test has a tab of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.integrations.real_mesh import Gateway, running_mesh, scripted_model
from tests.page.person import Person
from tests.page.scripted import PageModel

# The machine may be busy with other things.
PATIENCE_MS = 90_000
# Chromium logs every answer of status 400 and above, which the tests bring about on purpose.
REFUSED = "Failed to load resource"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium, or whichever is there."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium here: apt-get install chromium")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mesh's data folder."""
    return tmp_path_factory.mktemp("page") / "data"


@pytest.fixture(scope="session")
def model() -> Iterator[PageModel]:
    """The language model behind the mesh."""
    scripted = PageModel()
    with scripted_model(scripted):
        yield scripted


@pytest.fixture(scope="session")
def gateway(chromium: str, data: Path, model: PageModel) -> Iterator[Gateway]:
    """A gateway of a whole mesh."""
    with running_mesh(data, model.url) as url:
        key = json.loads((data / "credentials.json").read_text())["api_key"]
        yield Gateway(url, key, model)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser without a window."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Root has no sandbox of Chromium's own; the pages are ours.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    """A tab that went nowhere else and saw nothing go wrong, whatever its test did."""
    context = browser.new_context(viewport={"width": 1100, "height": 800}, locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    complaints: list[str] = []
    addresses: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(REFUSED):
            complaints.append(message.text)

    tab.on("console", listen)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: addresses.append(request.url))
    yield tab
    context.close()
    assert complaints == []
    assert [each for each in addresses if not each.startswith(f"{gateway.url}/")] == []


@pytest.fixture
def person(page: Page, gateway: Gateway) -> Person:
    """Somebody who has signed in."""
    somebody = Person(page, gateway.url, gateway.key)
    somebody.sign_in()
    return somebody
