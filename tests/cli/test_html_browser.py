"""The pages in a real browser: nothing clipped, nothing on top of another, readable in both schemes, nothing loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from fourtuple.cli.html.page import connect_page
from fourtuple.cli.main import main
from tests.cli.test_html import STORIES, attempt_of, hostile_page

pytestmark = pytest.mark.compiled_only  # a browser looks at the same page twice
LAYOUT = Path(__file__).with_name("layout.js").read_text()
WIDTHS = (1400, 820, 360)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One headless Chromium for all."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "no Chromium: `make setup` installs one"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=30_000)
        yield found.new_context()
        found.close()


class Reader:
    """A page opened, and everything that it did besides."""

    def __init__(self, browser: BrowserContext, path: Path) -> None:
        self.page: Page = browser.new_page()
        self.page.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri())

    def problems(self) -> list[str]:
        """What is wrong with the layout, at each width in each scheme."""
        found = []
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 800})
            height = self.page.evaluate("document.documentElement.scrollHeight")
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                self.page.emulate_media(color_scheme=scheme)
                found += [f"{width} {scheme}: {wrong}" for wrong in self.page.evaluate(LAYOUT)]
        return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a page for each story, one of a hostile server, and one of the demo."""
    home = tmp_path_factory.mktemp("pages")
    for name, story in STORIES.items():
        attempt, tables = attempt_of(**story)
        (home / f"{name}.html").write_text(connect_page(attempt, tables, 3, story.get("held", 0)))
    (home / "hostile.html").write_text(hostile_page())
    assert main(["demo", "--wire", "sim", "--html", str(home / "demo.html")]) == 0
    return home


@pytest.fixture
def reader(browser: BrowserContext, pages: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """The page that the test is about, opened."""
    found = Reader(browser, pages / f"{request.param}.html")
    yield found
    found.page.close()


@pytest.mark.parametrize("reader", [*STORIES, "hostile", "demo"], indirect=True)
def test_a_page_is_readable_at_every_width_and_loads_nothing(reader: Reader) -> None:
    assert reader.problems() == []
    assert reader.complaints == []
    assert reader.requests == [reader.page.url]


@pytest.mark.parametrize("reader", ["lost-syn", "full"], indirect=True)
def test_with_every_function_and_its_place_shown_it_is_readable_too(reader: Reader) -> None:
    hidden = reader.page.locator(".step.detail").first
    assert not hidden.is_visible() and not reader.page.locator(".where").first.is_visible()
    reader.page.get_by_text("every function", exact=True).click()
    reader.page.get_by_text("where it lives", exact=True).click()
    assert hidden.is_visible() and reader.page.locator(".where").first.is_visible()
    assert reader.problems() == []


@pytest.mark.parametrize("reader", ["plain"], indirect=True)
def test_the_button_switches_the_scheme_and_back(reader: Reader) -> None:
    reader.page.emulate_media(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    before = reader.page.evaluate(background)
    button = reader.page.locator("button.theme")
    button.click()
    assert reader.page.evaluate(background) != before
    button.click()
    assert reader.page.evaluate(background) == before


@pytest.mark.parametrize("reader", ["plain"], indirect=True)
def test_columns_stand_side_by_side_only_where_there_is_room(reader: Reader) -> None:
    def lefts() -> list[float]:
        boxes = [reader.page.locator(card).first.bounding_box() for card in (".calls", ".wire")]
        return [box["x"] for box in boxes if box is not None]

    reader.page.set_viewport_size({"width": 1400, "height": 900})
    left, right = lefts()
    assert right > left + 400
    reader.page.set_viewport_size({"width": 820, "height": 900})
    left, right = lefts()
    assert left == right


@pytest.mark.parametrize("reader", ["lost-syn"], indirect=True)
def test_on_paper_it_is_light_and_without_buttons(reader: Reader) -> None:
    reader.page.emulate_media(media="print", color_scheme="dark")
    assert (
        reader.page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert not reader.page.locator("button.theme").is_visible()


@pytest.mark.parametrize("reader", ["plain"], indirect=True)
def test_pictures_and_headings_have_names(reader: Reader) -> None:
    snapshot = reader.page.locator("body").aria_snapshot()
    assert 'img "The packets of connect(), in time' in snapshot
    assert 'img "The port search' in snapshot
    assert snapshot.count("heading") >= 5


INSERT = "rule => document.styleSheets[0].insertRule(rule, document.styleSheets[0].cssRules.length)"
FAULTS = {
    "h1{width:3000px}": "page scrolls",
    "h1{margin-left:700px;white-space:nowrap}": "beyond the window",
    ".say{white-space:nowrap;width:60px}": "does not fit",
    ".what{position:relative;left:300px}": "beyond its card",
    "svg text{font-size:30px!important}": "overlap",
    "svg text{transform:translateX(-200px)}": "outside its picture",
    "svg .small{font-size:8px}": " px: ",
    ".hint{color:#999!important}": "contrast",
    ".symbol{fill:#777!important}": "contrast",
}


@pytest.mark.parametrize("reader", ["past-reserved-ports"], indirect=True)
def test_the_judge_of_the_layout_sees_what_is_wrong(reader: Reader) -> None:
    reader.page.set_viewport_size({"width": 820, "height": 4000})
    assert reader.page.evaluate(LAYOUT) == []
    for rule, complaint in FAULTS.items():
        at = reader.page.evaluate(INSERT, rule)
        assert [wrong for wrong in reader.page.evaluate(LAYOUT) if complaint in wrong], rule
        reader.page.evaluate("at => document.styleSheets[0].deleteRule(at)", at)
