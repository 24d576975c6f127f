"""The pictures of the README, from pages that the commands make: `make_pictures.py`, in the development environment
(Pillow comes with matplotlib, the extra `plots`).

connect.png   a connect() on a TUN: the first SYN lost, ports passed over on the way to the one it takes
cliff.png     the filled range of the demo: where the ports go, and what each connect() costs
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WIDTH = 1400
COLORS = 256
_TRIES = 60
_FILL = ("--fill", "20%")


def fourtuple(*arguments: str) -> str:
    """Run a command of ours; its output."""
    command = [sys.executable, "-m", "fourtuple.cli.main", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def connect(*options: str) -> dict[str, Any]:
    """One connect() on a TUN; its report."""
    document: dict[str, Any] = json.loads(fourtuple("connect", ":8080", "--wire", "tun", "--json", *_FILL, *options))
    return document


def verdicts(document: dict[str, Any]) -> list[str]:
    """What it found at each port, in order."""
    return [look["verdict"] for look in document["ports"]["looks"]]


def make_connect_page(path: Path) -> None:
    """Look for a search worth a picture, then reserve the port it would have taken, and one behind it.

    The same seed starts the search at the same port as long as the kernel's period of 10 s for its hash lasts.
    """
    for seed in range(_TRIES):
        first = connect("--seed", str(seed))
        if not 2 <= len(verdicts(first)) <= 3:
            continue
        port = first["ports"]["looks"][-1]["port"]
        options = ("--seed", str(seed), "--reserve", f"{port}-{port + 1}", "--loss", "syn:1", "--rtt", "30ms")
        found = verdicts(connect(*options, "--html", str(path)))
        if 3 <= len(found) <= 6 and {"established", "reserved"} <= set(found):
            return
    raise SystemExit(f"no search worth a picture in {_TRIES} tries")


def take(page: Page, page_file: Path, name: str, left_out: str = "button, .switches") -> None:
    """A screenshot of the page, dark, without the elements left out; with few colours it is small."""
    page.goto(page_file.as_uri())
    page.evaluate("left_out => document.querySelectorAll(left_out).forEach(e => e.remove())", left_out)
    path = PICTURES / name
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    sys.stdout.write(f"{path.name}: {path.stat().st_size // 1000} kB\n")


def main() -> None:
    """Make both."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        connect_page, demo_page = Path(home) / "connect.html", Path(home) / "demo.html"
        make_connect_page(connect_page)
        fourtuple("demo", "--wire", "tun", "--html", str(demo_page))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 400}, color_scheme="dark")
        take(page, connect_page, "connect.png")
        take(page, demo_page, "cliff.png", "header, footer, .chapter, .more, main > section:not(#chapter-5)")
        browser.close()


if __name__ == "__main__":
    main()
