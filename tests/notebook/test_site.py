"""The site of docs/ has what readers expect: search, dark mode, copy buttons, the notebook with its
outputs, contents at the side, on a telephone too; and no link of it is broken."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest
from selenium.webdriver.common.by import By

from scripts.make_notebook import NOTEBOOK
from tests.browser import browser, requested
from tests.site import Page, broken_links, build_site

ROOT = Path(__file__).parents[2]
PHONE, DESK = 390, 1440
pytestmark = pytest.mark.slow  # one build of all pages, some 20 s of processor time


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("site").resolve()
    done = build_site(ROOT, to)
    assert (done.returncode, done.stderr) == (0, "")
    return to


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: requests are read from the browser."""


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The address of the site on loopback."""
    handler = functools.partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def opened(served: str) -> Iterator[Any]:
    with browser(DESK, 1000) as driver:
        yield driver
        assert [e for e in driver.get_log("browser") if e["level"] == "SEVERE"] == []
        assert {url for url in requested(driver) if not url.startswith(served)} <= {"about:blank"}


def _becomes(ask: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not (there := ask()) and time.monotonic() < end:
        time.sleep(0.1)
    return there


def _width(driver: Any, pixels: int) -> None:
    size = {"width": pixels, "height": 1000, "deviceScaleFactor": 1, "mobile": pixels < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_no_link_is_broken(site: Path) -> None:
    assert broken_links(site) == []


def test_a_broken_link_is_seen(site: Path, tmp_path: Path) -> None:
    page = site / "docs" / "glossary.html"
    text = page.read_text()
    (tmp_path / "a.html").write_text(text + '<a href="nowhere.html">x</a><a href="#no">y</a>')
    assert {"a.html: nowhere.html", "a.html: #no"} <= set(broken_links(tmp_path))


def test_every_page_is_among_the_contents_at_the_side(site: Path) -> None:
    page = (site / "docs" / "README.html").read_text()
    side = page.partition("sidebar-tree")[2].partition("</aside>")[0]
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix(".html")
        if path.parent.name != "decisions" and path.name != "README.md":
            assert f'href="{name}"' in side, name
    for kind in ("Tutorials", "How-to guides", "Reference", "Explanation"):
        assert f">{kind}</span>" in side


def test_the_top_of_the_site_leads_to_the_index(site: Path) -> None:
    assert 'url=docs/README.html"' in (site / "index.html").read_text()


def test_the_outputs_of_the_notebook_are_in_its_page(site: Path) -> None:
    page = (site / "docs" / "tutorials" / "notebook.html").read_text()
    cells = nbformat.read(NOTEBOOK, as_version=4)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert page.count('class="output text_html"') == sum(
        "text/html" in o.get("data", {}) for o in outputs
    )
    assert page.count('<img alt="../../_images') == len(pictures) == 1
    for said in ("7 accepted, 113 rejected", "holdout_iia", "residual, layer 1"):
        assert said in page


def _found(driver: Any) -> list[str]:
    """The pages that a search shows."""
    links = driver.find_elements(By.CSS_SELECTOR, "#search-results li a")
    return [link.get_attribute("href").rpartition("/docs/")[2] for link in links]


def test_search_finds_a_page_by_words_of_it(opened: Any, served: str) -> None:
    opened.get(f"{served}/search.html?q=interchange+accuracy")
    assert _becomes(lambda: "glossary.html" in _found(opened)), _found(opened)
    opened.get(f"{served}/search.html?q=zyzzyva")
    assert _becomes(lambda: "did not match" in opened.find_element(By.ID, "search-results").text)
    assert _found(opened) == []


def test_the_button_turns_the_page_dark_and_light(opened: Any, served: str) -> None:
    opened.get(f"{served}/docs/explanation/reading-a-result.html")
    _width(opened, DESK)
    seen = {}
    for _ in range(3):
        theme = opened.execute_script("return document.body.dataset.theme")
        seen[theme] = opened.execute_script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        opened.find_element(By.CSS_SELECTOR, ".theme-toggle-content .theme-toggle").click()
        assert _becomes(
            lambda was=theme: opened.execute_script("return document.body.dataset.theme") != was
        )
    assert set(seen) == {"auto", "light", "dark"}
    assert seen["light"] == "rgb(255, 255, 255)" != seen["dark"]


def test_each_command_has_a_button_that_copies_it(opened: Any, served: str) -> None:
    opened.get(f"{served}/docs/how-to/write-a-job.html")
    blocks = opened.find_elements(By.CSS_SELECTOR, "div.highlight > pre")
    assert _becomes(
        lambda: len(opened.find_elements(By.CSS_SELECTOR, "button.copybtn")) == len(blocks) > 5
    )
    button = opened.find_element(By.CSS_SELECTOR, "button.copybtn")
    opened.execute_script("arguments[0].click()", button)
    assert _becomes(lambda: "success" in button.get_attribute("class"))


@pytest.mark.parametrize(
    "page", ["README", "reference/tables", "explanation/statistics", "tutorials/notebook"]
)
def test_a_page_is_no_wider_than_a_telephone(page: str, opened: Any, served: str) -> None:
    opened.get(f"{served}/docs/{page}.html")
    _width(opened, PHONE)
    assert opened.execute_script("return document.documentElement.scrollWidth") == PHONE


def test_a_page_has_its_own_contents_beside_it(site: Path) -> None:
    page = Page(site / "docs" / "explanation" / "statistics.html")
    assert len([link for link in page.links if link.startswith("#")]) > 10
