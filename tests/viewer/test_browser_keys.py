"""The viewer in a real browser: its keys, what it says where nothing was accepted, cells of another
run's file, the scores of a pair, and its print."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysearch.viewer import page as pages
from raysearch.viewer.page import FILE, write_page
from tests.browser import browser
from tests.store.books import new_run
from tests.viewer.books import closed, decided, few, hypothesis, measured, proposed
from tests.viewer.test_browser import all_of, hash_of, look, one, text, wait
from tests.viewer.test_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser(1280, 1000) as opened:
        yield opened


def press(opened: Any, key: str) -> None:
    one(opened, "body").send_keys(key)


def test_keys_go_to_each_view_and_from_cell_to_cell(opened: Any, tmp_path: Path) -> None:
    run = few(tmp_path)
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    press(opened, "?")
    assert "compare with another run" in text(opened, "dialog.keys")
    press(opened, "?")
    wait(opened, lambda: not all_of(opened, "dialog.keys"))
    for key, view in (("t", "table"), ("r", "report"), ("c", "compare"), ("m", "maps")):
        press(opened, key)
        wait(opened, lambda view=view: hash_of(opened) == f"#/{view}")  # type: ignore[misc]
    press(opened, "n")
    wait(opened, lambda: all_of(opened, "#cell .badge.accepted"))
    first = hash_of(opened)
    press(opened, "p")
    wait(opened, lambda: hash_of(opened) != first)
    press(opened, "n")
    wait(opened, lambda: hash_of(opened) == first)
    press(opened, "t")
    wait(opened, lambda: all_of(opened, "input[type=search]"))
    press(opened, "f")
    wait(opened, lambda: opened.switch_to.active_element.tag_name == "input")
    opened.switch_to.active_element.send_keys("mr?")
    assert hash_of(opened) == "#/table", "what is typed is no key"
    assert opened.get_log("browser") == []


def test_where_nothing_was_accepted_the_best_is_named_and_why_it_was_not(
    opened: Any, tmp_path: Path
) -> None:
    run = few(tmp_path, accepted=0)
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    said = one(opened, "#main .warning")
    for words in ("Nothing is accepted", "country at layer", "below the threshold 0.8"):
        assert words in said.text
    one(opened, "#main .warning a").click()
    wait(opened, lambda: all_of(opened, "#cell .pair"))
    other = few(tmp_path / "other", accepted=1)
    write_page(other.folder)
    look(opened, (other.path / FILE).as_uri())
    assert not all_of(opened, "#main .warning")


@pytest.mark.parametrize("ablates", [True, False])
def test_keep_pairs_of_an_ablation_are_said_as_they_are(
    opened: Any, tmp_path: Path, ablates: bool
) -> None:
    """Three keep pairs, all of which lose the base's answer: what an ablation is to do."""
    h = hypothesis("relation", 0)
    if ablates:
        h = replace(h, intervention=replace(h.intervention, kind="zero"))
    run = closed(new_run(tmp_path), [*proposed([h]), measured(h), decided(h, "reject")])
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    wait(opened, lambda: all_of(opened, "td[data-h='0']"))
    all_of(opened, "td[data-h='0']")[0].click()
    wait(opened, lambda: all_of(opened, "#cell .pair"))
    assert "3 keep pairs that changed" in text(opened, "#cell")
    assert len(all_of(opened, f"#cell .pair.{'match' if ablates else 'miss'}")) == 3
    assert ("should stay" in text(opened, "#cell")) != ablates
    assert opened.get_log("browser") == []


@pytest.mark.parametrize("inside", [True, False])
def test_a_cell_of_a_run_from_a_chosen_file_opens_beside_the_maps(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    run, other = few(tmp_path / "a"), few(tmp_path / "b", accepted=0)
    write_page(run.folder)
    monkeypatch.setattr(pages, "MAX_INSIDE", pages.MAX_INSIDE if inside else 0)
    write_page(other.folder)
    look(opened, f"{(run.path / FILE).as_uri()}#/compare")
    chosen = other.path / (FILE if inside else "view/index.js")
    one(opened, "input[type=file]").send_keys(str(chosen))
    wait(opened, lambda: len(all_of(opened, ".two .heat td[data-h]")) == 6)
    all_of(opened, ".two section:last-child td[data-h]")[0].click()
    wait(opened, lambda: one(opened, "#cell").is_displayed())
    if not inside:
        wait(opened, lambda: "open it there" in text(opened, "#cell"))
        return
    wait(opened, lambda: all_of(opened, "#cell .pair.miss"))
    assert "rejected" in text(opened, "#cell .verdict")
    next(c for c in all_of(opened, "#cell .chip") if c.text.endswith("matches")).click()
    wait(opened, lambda: all_of(opened, "#cell .pair.match"))
    assert all_of(opened, ".maps.difference td[data-h]"), "the comparison is still there"
    press(opened, "\ue00c")
    wait(opened, lambda: not one(opened, "#cell").is_displayed())
    assert opened.get_log("browser") == []


def test_an_error_in_a_comparison_is_shown_and_a_file_that_is_no_run_is_told(
    opened: Any, tmp_path: Path
) -> None:
    run, other = few(tmp_path / "a"), few(tmp_path / "b", accepted=0)
    write_page(run.folder)
    write_page(other.folder)
    look(opened, f"{(run.path / FILE).as_uri()}#/compare")
    (wrong := tmp_path / "wrong.html").write_text("<p>no run</p>")
    one(opened, "input[type=file]").send_keys(str(wrong))
    wait(opened, lambda: "that file holds no run" in text(opened, "#main [role=alert]"))
    page = (other.path / FILE).read_text()
    at = page.index(">", page.index('id="cells-0"')) + 1
    (broken := tmp_path / "broken.html").write_text(f"{page[:at]}no JSON{page[at:]}")
    one(opened, "input[type=file]").send_keys(str(broken))
    wait(opened, lambda: len(all_of(opened, ".two .heat td[data-h]")) == 6)
    all_of(opened, ".two section:last-child td[data-h]")[0].click()
    wait(opened, lambda: "This cannot be shown" in text(opened, "#cell [role=alert]"))
    assert "open it there" not in text(opened, "#cell")


def test_an_undecided_best_is_named_with_the_reason_of_its_row(opened: Any, tmp_path: Path) -> None:
    h = hypothesis("country", 0)
    high = replace(decided(h, "undecided", 3), low=0.84, high=1.0, reason="K asks for more")
    run = closed(new_run(tmp_path), [*proposed([h]), measured(h, 3), high])
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    said = text(opened, "#main .warning")
    assert "on 3 pairs: K asks for more: 3 pairs" in said
    assert "on both sides" not in said


def test_the_scores_of_a_pair_stand_at_it(opened: Any, tmp_path: Path) -> None:
    h = hypothesis("country", 0)
    counted = measured(h)
    scores = {"logit_difference": {"country": (-1.25, 3.5, 0.0)}}
    seen = replace(counted.observation, scores=scores)
    records = [*proposed([h]), replace(counted, observation=seen), decided(h, "reject")]
    run = closed(new_run(tmp_path), records)
    write_page(run.folder)
    look(opened, f"{(run.path / FILE).as_uri()}#/cell/{h.id}")
    wait(opened, lambda: len(all_of(opened, "#cell .pair.miss")) == 2)
    texts = [p.text for p in all_of(opened, "#cell .pair.miss")]
    assert ["logit difference 3.5" in texts[0], "logit difference 0" in texts[1]] == [True, True]


def test_the_print_of_a_page_has_its_maps_and_no_buttons(opened: Any, tmp_path: Path) -> None:
    run = few(tmp_path)
    write_page(run.folder)
    look(opened, (run.path / FILE).as_uri())
    made = opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(made["data"]).count(b"/Type /Page\n") <= 1
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert one(opened, ".heat td.accept").is_displayed()
    assert not [a for a in all_of(opened, "#head nav, .chips, .hint") if a.is_displayed()]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_comparison_draws_what_both_have_and_counts_no_verdict_that_is_not_there_yet(
    opened: Any, tmp_path: Path
) -> None:
    few(tmp_path)
    with serving(tmp_path) as server:
        address = f"http://127.0.0.1:{server.port}/"
        look(opened, address)
        one(opened, ".runs tbody a").click()
        wait(opened, lambda: all_of(opened, ".heat td"))
        next(a for a in all_of(opened, "nav a") if a.text == "Compare").click()
        alone = wait(opened, lambda: text(opened, ".others"))
        assert alone.splitlines() == ["In this store", "There is no other run."]
        h = [hypothesis("country", 0), hypothesis("country", 1), hypothesis("relation", 0)]
        closed(new_run(tmp_path, name="second"), [*proposed(h), decided(h[1], "accept", 3)])
        look(opened, address)
        next(a for a in all_of(opened, ".runs tbody a") if a.text == "second").click()
        wait(opened, lambda: all_of(opened, ".heat td"))
        next(a for a in all_of(opened, "nav a") if a.text == "Compare").click()
        assert "null" not in wait(opened, lambda: text(opened, ".others"))
        one(opened, ".others a").click()
        wait(opened, lambda: all_of(opened, ".difference td[data-h]"))
        shown = text(opened, "#main")
        assert "Of one run alone, and not drawn: relation." in shown
        assert "Another verdict (1)" in shown, "layer 1; that of layer 0 has none yet"
        assert len(all_of(opened, ".difference td.accept")) == 1
        assert opened.get_log("browser") == []
