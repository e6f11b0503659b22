"""One browser for all pages of _build/html, and one visit of each page that the tests share.

`make test-site` builds the book and runs them. CHROMIUM names a browser that is not on PATH.
"""

import functools
import http.server
import threading
from collections.abc import Iterator

import pytest
from visits import HTML, PAGES, Quiet, Visit, executable, open_page


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


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where this machine serves the book."""
    if not PAGES:
        pytest.exit("there are no pages in _build/html: `make html` renders them", 1)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module", params=PAGES)
def visit(request, browser, address) -> Iterator[Visit]:
    visit = open_page(browser, address, request.param, "dark")  # what it shows in light is asked for later
    yield visit
    visit.page.context.close()
