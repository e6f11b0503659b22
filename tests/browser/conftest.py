"""One browser for all pages of _build/html, and one visit of each page in light and in dark that the tests share.

`make test-site` builds the book and runs them. CHROMIUM names a browser that is not on PATH.
"""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
PICTURES = ROOT / "_build" / "pages"  # a picture of every page, for a person to look at
PAGES = [str(path.relative_to(HTML)) for path in sorted(HTML.rglob("*.html")) if "_static" not in path.parts]
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


@pytest.fixture(scope="session")
def browser():
    binary = executable()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.exit("playwright is not installed: `make install`, or pip install -r requirements.lock", 1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where this machine serves the book."""
    if not PAGES:
        pytest.exit("there are no pages in _build/html: `make html` renders them", 1)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@dataclass
class Visit:
    """An open page and what happened while it opened."""

    name: str
    scheme: str
    page: object
    messages: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def at(self, width: int) -> None:
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def open_page(browser, address: str, name: str, scheme: str = "light") -> Visit:
    """A page with its formulas set; what it asks of other machines is noted and refused."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTHS[-1], "height": HEIGHT},
                                  reduced_motion="reduce")
    visit = Visit(name, scheme, context.new_page())

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


@pytest.fixture(scope="module", params=[(name, scheme) for name in PAGES for scheme in SCHEMES],
                ids=lambda pair: "-".join(pair))
def visit(request, browser, address) -> Iterator[Visit]:
    visit = open_page(browser, address, *request.param)
    yield visit
    visit.page.context.close()
