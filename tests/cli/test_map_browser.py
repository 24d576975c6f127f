"""The page of `fourtuple map` in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from fourtuple.cli.main import main
from fourtuple.live.snapshot import write
from tests.cli.test_html_browser import Reader
from tests.cli.test_html_browser import browser as browser
from tests.cli.test_map import made_up

pytestmark = pytest.mark.compiled_only  # a browser looks at the same page twice

PAGES = {
    "destination": (made_up(), []),
    "buckets": (made_up(), ["--buckets"]),
    "small": (made_up(20_000, 32_399, 40, 3), ["192.0.2.9:443"]),
    "nobody": (made_up(), ["192.0.2.77:443"]),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_readable_at_every_width_and_loads_nothing(
    browser: BrowserContext, tmp_path: Path, name: str
) -> None:
    taken, words = PAGES[name]
    write([taken], tmp_path / "taken")
    page = tmp_path / "map.html"
    assert main(["map", "-r", str(tmp_path / "taken"), "--html", str(page), *words]) == 0
    reader = Reader(browser, page)
    try:
        assert reader.problems() == []
        assert (reader.complaints, reader.requests) == ([], [reader.page.url])
        assert 'img "Port map' in reader.page.locator("body").aria_snapshot()
    finally:
        reader.page.close()


def test_squares_differ_by_shape_too(browser: BrowserContext, tmp_path: Path) -> None:
    """Two kinds of the same colour are drawn in different ways, and the ground shows between squares that are free."""
    write([made_up()], tmp_path / "taken")
    assert main(["map", "-r", str(tmp_path / "taken"), "--html", str(tmp_path / "map.html")]) == 0
    reader = Reader(browser, tmp_path / "map.html")
    looks = reader.page.evaluate(
        """() => [...document.querySelectorAll("svg[width='676'] path.ports-in")].map(path => {
            const style = getComputedStyle(path);
            return [path.getAttribute("class"), style.stroke, style.strokeWidth, style.strokeDasharray].join("|");
        })"""
    )
    reader.page.close()
    shapes = {look.split("|", 1)[1] for look in looks}
    assert len(looks) == 8  # reserved in both halves
    assert len(shapes) == 7  # even, odd, time_wait, likely_bound, bound, listen, reserved
