"""What the tests of the pages share: where the pages are, and a visit of one in a browser."""

import functools
import http.server
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
PICTURES = ROOT / "_build" / "pages"  # a picture of every page, for a person to look at
# index.html alone only sends its readers on to the first page
PAGES = [str(path.relative_to(HTML)) for path in sorted(HTML.rglob("*.html"))
         if "_static" not in path.parts and "Refresh" not in path.read_text(encoding="utf-8")[:200]]
SCHEMES = ("light", "dark")
WIDTHS = (390, 820, 1440)  # a phone, a tablet, a desk
HEIGHT = 900
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# no element moves while it is measured or photographed
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"


def executable() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.exit("no Chromium was found: `apt-get install chromium`, or name one with CHROMIUM=/path/to/it", 1)
    return found


@functools.cache
def soup(name: str) -> BeautifulSoup:
    """What a page's file says, for tests that need no browser."""
    return BeautifulSoup((HTML / name).read_text(encoding="utf-8"), "html.parser")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@dataclass
class Visit:
    """An open page and what happened while it opened."""

    name: str
    page: object
    messages: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def shown_in(self, scheme: str) -> None:
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)

    def at(self, width: int) -> None:
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def open_page(browser, address: str, name: str, scheme: str = "light") -> Visit:
    """A page with its formulas set; what it asks of other machines is noted and refused."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTHS[-1], "height": HEIGHT},
                                  reduced_motion="reduce")
    visit = Visit(name, context.new_page())

    def route(route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            return route.continue_()
        visit.outside.append(route.request.url)
        return route.abort()

    context.route("**/*", route)
    page = visit.page
    page.on("console", lambda message: message.type in ("error", "warning") and visit.messages.append(
        f"{message.type}: {message.text} ({message.location.get('url', '').removeprefix(address)})"))
    page.on("pageerror", lambda error: visit.messages.append(f"exception: {error}"))
    page.on("response", lambda answer: answer.status >= 400 and visit.missing.append(answer.url.removeprefix(address)))
    page.goto(address + name, wait_until="load")
    page.add_style_tag(content=STILL)
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate("() => document.fonts.ready.then(() => true)")
    return visit
