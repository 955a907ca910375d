"""The viewer in a real browser: clicked through, walked by keyboard, while a run goes on.

docs/pictures/viewer.png is of the first test: RAYSEARCH_SCREENSHOT=docs/pictures/viewer.png python
-m pytest tests/viewer/test_browser.py -k opens_its_pairs
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from raysearch.store.ledger import RunLedger
from raysearch.viewer import page as pages
from raysearch.viewer import run_list
from raysearch.viewer.page import FILE, write_page
from tests.browser import browser, requested
from tests.cli.conftest import QUICKSTART
from tests.once import Once
from tests.report.big_run import big_run
from tests.store.books import new_run
from tests.viewer.books import HOSTILE, decided, few, hostile, hypothesis, measured, proposed
from tests.viewer.test_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser(1280, 1000) as opened:
        yield opened


@pytest.fixture(scope="module")
def quickstart(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("quickstart") / "run"
    shutil.copytree(once.searched(QUICKSTART), run)
    write_page(str(run))
    return run


def wait(opened: Any, what: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits until something holds. An element that was drawn anew while it was read is read again."""
    drawn_anew = [StaleElementReferenceException]
    return WebDriverWait(opened, seconds, ignored_exceptions=drawn_anew).until(lambda _: what())


def look(opened: Any, address: str) -> None:
    """Opens an address afresh, and waits until it is drawn."""
    opened.get("about:blank")
    opened.get_log("browser")
    requested(opened)
    opened.get(address)
    wait(opened, lambda: opened.execute_script("return document.body.dataset.ready"))


def all_of(opened: Any, selector: str) -> list[Any]:
    found: list[Any] = opened.find_elements("css selector", selector)
    return found


def one(opened: Any, selector: str) -> Any:
    return wait(opened, lambda: all_of(opened, selector))[0]


def text(opened: Any, selector: str) -> str:
    """The text of the first element, though it may be drawn anew at any time."""
    return str(wait(opened, lambda: [e.text for e in all_of(opened, selector)][:1])[0])


def hash_of(opened: Any) -> str:
    return str(opened.execute_script("return location.hash"))


def test_a_cell_opens_its_pairs_on_a_disk_without_any_request(
    opened: Any, quickstart: Path, tmp_path: Path
) -> None:
    page = quickstart / FILE
    look(opened, page.as_uri())
    assert requested(opened) == {page.as_uri()}
    cells = all_of(opened, ".heat td[data-h]")
    assert len(cells) == 120
    assert len(all_of(opened, ".heat td.accept")) == 7
    failing = next(c for c in cells if c.text == "0.17")
    failing.click()
    wait(opened, lambda: all_of(opened, "#cell .pair"))
    shown = all_of(opened, "#cell .pair")
    assert {"miss" in p.get_attribute("class") for p in shown} == {True}, "failures first"
    assert text(opened, "#cell .chip.miss[aria-current]").endswith("failures")
    assert len(all_of(opened, "#cell .pair mark")) >= 2 * len(shown), "base and source are marked"
    for name in ("expected", "said", "the base alone"):
        assert name in shown[0].text
    assert "Evidence over" in text(opened, "#cell")
    address = hash_of(opened)
    assert address.startswith("#/cell/")
    picture = Path(os.environ.get("RAYSEARCH_SCREENSHOT") or tmp_path / "viewer.png")
    assert opened.save_screenshot(str(picture))
    next(c for c in all_of(opened, "#cell .chip") if c.text.endswith("matches")).click()
    wait(opened, lambda: all_of(opened, "#cell .pair.match"))
    opened.back()
    wait(opened, lambda: all_of(opened, "#cell .pair.miss"))
    assert hash_of(opened) == address
    opened.back()
    wait(opened, lambda: not one(opened, "#cell").is_displayed())
    look(opened, f"{page.as_uri()}{address}")
    wait(opened, lambda: all_of(opened, "#cell .pair.miss"))
    assert opened.get_log("browser") == []
    assert requested(opened) == {f"{page.as_uri()}"}


def test_the_keyboard_walks_over_cells_opens_one_and_goes_back(
    opened: Any, quickstart: Path
) -> None:
    look(opened, (quickstart / FILE).as_uri())

    def press(*keys: str) -> str:
        for key in keys:
            opened.switch_to.active_element.send_keys(key)
        return str(opened.switch_to.active_element.get_attribute("aria-label"))

    opened.execute_script("document.querySelector('td[data-h]').focus()")
    here = press()
    assert press(Keys.ARROW_RIGHT) != here
    assert press(Keys.ARROW_LEFT) == here
    assert press(Keys.ARROW_LEFT) == here, "at the border it stays"
    below = press(Keys.ARROW_DOWN)
    press(Keys.ENTER)
    wait(opened, lambda: all_of(opened, "#cell .pair"))
    wait(opened, lambda: opened.switch_to.active_element.tag_name == "h2")
    press(Keys.ESCAPE)
    wait(opened, lambda: press() == below)
    wait(opened, lambda: not one(opened, "#cell").is_displayed())


def test_texts_of_users_are_texts(opened: Any, tmp_path: Path) -> None:
    run = hostile(tmp_path)
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    title = opened.title
    for view in ("maps", "table", "compare"):
        look(opened, f"{(run.path / FILE).as_uri()}#/{view}")
        assert HOSTILE in text(opened, "body")
    look(opened, (run.path / FILE).as_uri())
    all_of(opened, "td[data-h].accept")[0].click()
    wait(opened, lambda: all_of(opened, "#cell .pair"))
    assert text(opened, "#cell").count(HOSTILE) > 5
    assert all_of(opened, "img, #main b b, #cell b b") == []
    assert opened.title == title
    assert opened.get_log("browser") == []


def test_data_beside_the_page_are_read_from_a_disk_too(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_INSIDE", 0)
    run = few(tmp_path)
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    all_of(opened, "td[data-h]")[0].click()
    wait(opened, lambda: all_of(opened, "#cell .pair"))
    assert opened.get_log("browser") == []
    shutil.rmtree(run.path / "view")
    look(opened, (run.path / FILE).as_uri())
    assert "send the whole folder of the run" in text(opened, "[role=alert]")


def test_a_store_is_listed_filtered_sorted_and_compared(opened: Any, tmp_path: Path) -> None:
    few(tmp_path)
    few(tmp_path, accepted=2, name="second")
    with serving(tmp_path) as server:
        address = f"http://127.0.0.1:{server.port}/"
        look(opened, address)
        assert len(all_of(opened, ".runs tbody tr")) == 2
        opened.find_element("css selector", "input[type=search]").send_keys("second")
        wait(opened, lambda: len(all_of(opened, ".runs tbody tr")) == 1)
        assert hash_of(opened).endswith("text=second")
        look(opened, f"{address}#/maps?sort=accepted")
        names = [row.text.split()[0] for row in all_of(opened, ".runs tbody tr")]
        assert names == ["second", "capitals"]
        one(opened, ".runs tbody a").click()
        wait(opened, lambda: len(all_of(opened, ".heat td.accept")) == 2)
        next(a for a in all_of(opened, "nav a") if a.text == "Compare").click()
        one(opened, ".others a").click()
        wait(opened, lambda: "Two runs" in text(opened, "#main"))
        cells = wait(opened, lambda: all_of(opened, ".difference td[data-h]"))
        assert [c.text for c in cells] == ["0.00", "+0.67", "0.00"]
        assert len(all_of(opened, ".difference td.accept")) == 1, "outlined: another verdict"
        this, other = all_of(opened, ".two section")
        assert abs(this.rect["y"] - other.rect["y"]) < 2, "side by side"
        for side, accepted in ((this, 2), (other, 1)):
            assert len(side.find_elements("css selector", "td.accept")) == accepted
        assert "/#/compare/capitals" in opened.current_url, "an address to send"
        cell = other.find_element("css selector", "td.accept")
        cell.click()
        wait(opened, lambda: "/runs/capitals" in opened.current_url)
        wait(opened, lambda: len(all_of(opened, "#cell .pair.match")) == 3)
        assert opened.get_log("browser") == []


def test_a_run_that_goes_on_fills_its_cells_before_the_eye(opened: Any, tmp_path: Path) -> None:
    h = [hypothesis("country", layer) for layer in range(2)]
    run = new_run(tmp_path)
    with run.lock(), serving(tmp_path) as server:
        ledger = RunLedger(run, max_seconds=0.0)
        address = f"http://127.0.0.1:{server.port}/runs/{run.info.id}/"
        look(opened, address)
        assert "Nothing is proposed yet" in text(opened, "#main")
        ledger.write_records([*proposed(h), measured(h[0], 2)])
        wait(opened, lambda: len(all_of(opened, "td.alive")) == 2)
        wait(opened, lambda: sorted(c.text for c in all_of(opened, "td.alive")) == ["", "0.67"])
        assert text(opened, "#head .badge") == "running"
        ledger.write_records([decided(h[0], "reject")])
        wait(opened, lambda: len(all_of(opened, "td.decided")) == 1)
        assert len(all_of(opened, "td.alive")) == 1
        ledger.write_records([decided(h[1], "undecided")])
        ledger.close("done")
        wait(opened, lambda: not all_of(opened, "td.alive"))
    assert opened.get_log("browser") == []


def test_a_page_of_an_earlier_state_is_read_again_before_a_cell_is_opened(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_INSIDE", 0)
    h = [hypothesis("country", layer) for layer in range(3)]
    run = new_run(tmp_path)
    with run.lock():
        ledger = RunLedger(run, max_seconds=0.0)
        ledger.write_records([*proposed(h), measured(h[2], 3)])
        write_page(run.folder)
        look(opened, (run.path / FILE).as_uri())
        ledger.write_records([measured(h[0], 0), decided(h[0], "reject", 0)])
        write_page(run.folder)
        all_of(opened, "td[data-h='0']")[0].click()
        # before the page is loaded again, running as it is
        wait(opened, lambda: len(all_of(opened, "#cell .pair.miss")) == 3, seconds=20)
        assert "1 rejected" in text(opened, "#head"), "the index is of the same state"
        assert all_of(opened, "[role=alert]") == []
        ledger.close("interrupted")
    assert opened.get_log("browser") == []


def test_a_text_that_is_being_typed_outlives_what_changes_meanwhile(
    opened: Any, tmp_path: Path
) -> None:
    few(tmp_path)
    with serving(tmp_path) as server:
        look(opened, f"http://127.0.0.1:{server.port}/")
        opened.execute_script("document.querySelector('input[type=search]').dataset.first = '1'")
        field = one(opened, "input[type=search]")
        field.send_keys("capitals", Keys.ARROW_LEFT)
        few(tmp_path, name="second")
        wait(opened, lambda: "2 runs" in text(opened, ".filters"))
        assert not all_of(opened, "input[data-first]"), "the list is drawn anew"
        opened.switch_to.active_element.send_keys("x")
        assert one(opened, "input[type=search]").get_attribute("value") == "capitalxs"


def test_half_a_text_in_the_table_of_a_run_that_goes_on_is_left_alone(
    opened: Any, tmp_path: Path
) -> None:
    h = [hypothesis("country", layer) for layer in range(2)]
    run = new_run(tmp_path)
    with run.lock(), serving(tmp_path) as server:
        ledger = RunLedger(run, max_seconds=0.0)
        ledger.write_records([*proposed(h), measured(h[0], 2)])
        look(opened, f"http://127.0.0.1:{server.port}/runs/{run.info.id}/#/table")
        one(opened, "input[type=search]").send_keys("layer 1")
        ledger.write_records([decided(h[0], "reject")])
        time.sleep(4)
        assert opened.switch_to.active_element.get_attribute("value") == "layer 1"
        opened.switch_to.active_element.send_keys(Keys.ENTER)
        wait(opened, lambda: "1 rejected" in text(opened, "#head"))
        assert len(all_of(opened, ".all tbody tr")) == 1
        ledger.close("done")


def test_a_page_of_a_run_that_was_done_sees_that_it_goes_on(opened: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for path, badge in (("", ".runs .badge"), ("runs/{}/", "#head .badge")):
            run = few(tmp_path, name="goes" if path else "listed")
            path = path.format(run.info.id)
            look(opened, f"http://127.0.0.1:{server.port}/{path}")
            assert text(opened, badge) == "done"
            with run.lock():
                ledger = RunLedger(run)
                wait(opened, lambda: text(opened, badge) == "running")  # noqa: B023
                ledger.close("interrupted")
            wait(opened, lambda: text(opened, badge) == "interrupted")  # noqa: B023


def test_a_list_that_is_cut_says_so(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(tmp_path)
    few(tmp_path, name="second")
    with serving(tmp_path) as server:
        look(opened, f"http://127.0.0.1:{server.port}/")
        assert all_of(opened, ".cut") == []
    monkeypatch.setattr(run_list, "MOST_RUNS", 1)
    with serving(tmp_path) as server:
        look(opened, f"http://127.0.0.1:{server.port}/")
        assert text(opened, ".cut") == "Only the first 1 of 2 are shown."


def test_a_narrow_screen_needs_no_scrolling_sideways(opened: Any, quickstart: Path) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for view in ("maps", "table", "compare"):
        look(opened, f"{(quickstart / FILE).as_uri()}#/{view}")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_map_of_many_cells_is_walked_over_as_well(opened: Any, tmp_path: Path) -> None:
    run = big_run(tmp_path, 6_600)
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    canvas = one(opened, "canvas")
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    wait(opened, lambda: "country ~ layer 30" in text(opened, ".told"))
    canvas.send_keys(Keys.ENTER)
    wait(opened, lambda: "30: residual at p1" in text(opened, "#cell h2"))
    opened.execute_script("document.querySelector('#cell .close').click()")
    wait(opened, lambda: not one(opened, "#cell").is_displayed())
    assert opened.get_log("browser") == []
