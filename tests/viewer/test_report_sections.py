"""The report of a run: what it says is what the tables say."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Decided, Effect, Estimated, Proposed, Record, SetCount, Weighed
from raysearch.errors import StoreError
from raysearch.report.run_data import MAX_ACCEPTED
from raysearch.storage.folder import Folder
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder, find_run
from raysearch.viewer.page import FILE, data_in, page, write_page
from raysearch.viewer.report_sections import MAX_OTHERS
from tests.cli.conftest import QUICKSTART, Shell
from tests.once import Once
from tests.store.books import new_run
from tests.viewer.books import HOSTILE, hostile
from tests.viewer.report_page import Page

pytestmark = pytest.mark.timeout(900)  # whole searches, on machines that do other things too


@dataclass(frozen=True)
class Searched:
    """A run, its page, and what `results` says of it."""

    run: RunFolder
    html: str
    page: Page
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def searched(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """The quick start, as it is; its page as the run has left it."""
    run = RunFolder.open(once.searched(QUICKSTART))
    html = run.folder.read(FILE).decode()
    shell = Shell(tmp_path_factory.mktemp("quickstart"))
    return Searched(run, html, Page(html), shell.json("results", str(run.path), "-o", "json"))


def test_the_alignment_is_that_of_the_tables(searched: Searched) -> None:
    head, *body = searched.page.tables["alignment-table"]
    accepted = [row for row in searched.rows if row["verdict"] == "accept"]
    assert len(body) == len(accepted) == 7
    for row, cells in zip(accepted, body, strict=True):
        shown = dict(zip(head, cells, strict=True))
        assert shown["variable"] == row["variable"]
        where = f"{row['layer']}: residual at {row['position']}"
        assert shown["layer: where"] == f"{where} {row['hypothesis'][:8]}"
        corrected = f"{row['fcr_low']:.3f} – {row['fcr_high']:.3f}"
        assert shown["95 % interval"] == f"{row['low']:.3f} – {row['high']:.3f} {corrected}"
        told = f"accept to {row['accept_to']:.2f}"
        if row["reject_from"] is not None:
            told += f" reject from {row['reject_from']:.2f}"
        assert shown["at every threshold"] == told
        figures = [f"{row[n]:.3f}" for n in ("iia", "keep_iia")]
        assert [shown[n] for n in ("IIA", "keep IIA")] == figures
        assert [shown[n] for n in ("n", "copies")] == [str(row[n]) for n in ("n", "copies")]
        ends = f"{row['holdout_low']:.3f} – {row['holdout_high']:.3f}"
        on_holdout = f"{row['holdout_iia']:.3f} (n = {row['holdout_n']}) {ends}"
        assert shown["holdout IIA"] == on_holdout
        controls = ("no_intervention_iia", "self_swap_iia", "random_source_iia")
        seen = [shown[name] for name in ("no intervention", "self swap", "random source")]
        assert [value[:5] for value in seen] == [f"{row[name]:.3f}" for name in controls]
        margins = re.findall(r"0\.\d{3} – [01]\.\d{3}", " ".join(seen[1:]))
        assert len(margins) == 1, "a control that was run has the interval of the margin over it"


def test_what_was_rejected_and_how_early_adds_up(searched: Searched) -> None:
    head, *body = searched.page.tables["by-variable"]
    for cells in body:
        shown = dict(zip(head, cells, strict=True))
        gone = sorted(
            r["n"]
            for r in searched.rows
            if r["variable"] == shown["variable"] and r["verdict"] == "reject"
        )
        assert (int(shown["rejected"]), int(shown["last rejected at (pairs)"])) == (
            len(gone),
            gone[-1],
        )
        assert sum(n <= int(shown["half rejected within (pairs)"]) for n in gone) >= len(gone) / 2
    (bars,) = [block["bins"] for block in searched.page.of("stops")]
    counts = {verdict: sum(n for _, v, n in bars if v == verdict) for _, verdict, _ in bars}
    assert counts == {"reject": 113, "accept": 7}


def test_question_claim_cost_and_provenance_are_those_of_the_run(searched: Searched) -> None:
    text = " ".join(searched.page.text.split())
    assert "Where are a, b, c, sum_ab and total in planted/model?" in text
    assert (
        "120 hypotheses: 4 layers (0, 1, 2, 3); 1 component (residual); 6 positions (a, plus1, b, "
        "plus2, c, last)." in text
    )
    assert "Accepted: 7 of 120." in text
    assert (
        "on at least 0.8 of all pairs of this sampler that the model solves on both sides" in text
    )
    assert "is at most 5 %, over all K = 120 hypotheses together" in text
    assert (
        "test: 256 used of 256 drawn, of which the model solves 100%; holdout: 128 used of 128 "
        "drawn" in text
    )
    observations = ds.dataset(searched.run.path / "tables/observations").to_table().to_pylist()
    assert f"{sum(len(o['pairs']) for o in observations)} (interventions × pairs" in text
    assert f"local-0: {sum(o['seconds'] for o in observations):.2f} s" in text
    info = json.loads(searched.run.folder.read("run.json"))
    assert all(
        str(info[key]) in text for key in ("job_hash", "model_digest", "created", "store_uri")
    )
    assert all(v in text for v in info["versions"].values())
    assert " ".join(searched.run.job_text.split()) in text
    assert "is not done" not in text
    pair = searched.page.tables["example"]
    assert re.fullmatch(r"\d\+\d\+\d=", pair[1][1])
    assert eval(pair[1][1].rstrip("=")) == int(pair[1][2])


def test_one_folder_gives_one_page(searched: Searched) -> None:
    assert page(searched.run.folder) == searched.html


@pytest.mark.slow
def test_the_command_writes_where_it_is_told_and_opens_what_it_wrote(
    searched: Searched, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)
    script = tmp_path / "browser.sh"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    script.chmod(0o755)
    done = shell(
        "report", str(searched.run.path), "--to", "own.html", "--open", BROWSER=f"{script} %s"
    )
    assert (done.returncode, done.stdout) == (0, "own.html\n"), done.stderr
    assert (tmp_path / "own.html").read_text() == searched.html
    assert (tmp_path / "opened").read_text().strip() == (tmp_path / "own.html").as_uri()
    nowhere = shell("report", str(searched.run.path), "--to", "own.html/own.html")
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert "--to own.html/own.html: there is no folder own.html" in nowhere.stderr
    assert shell("report", "latest").returncode != 0


def _hypothesis(
    variable: str, layer: int, position: str = "last", control: str | None = None
) -> Hypothesis:
    return Hypothesis(
        variable,
        Intervention((Unit(Site(layer, "residual", position), Subspace()),), control=control),
    )


def _decided(h: Hypothesis, verdict: str, matches: int, **more: Any) -> Decided:
    return Decided(h, verdict, 20, matches, 0.3, 1.0, 5, 4, 1, 0.25, 6.5, "these_pairs", **more)  # type: ignore[arg-type]


def _kept(run: RunFolder, notes: Sequence[Record], status: str = "done") -> RunFolder:
    ledger = RunLedger(run)
    ledger.write_records(list(notes))
    ledger.close(status)  # type: ignore[arg-type]
    return run


def test_a_run_without_accepted_ones_says_what_that_means(store: Folder) -> None:
    h = [_hypothesis("a", layer) for layer in range(2)]
    notes = [
        *(Proposed(x, "exhaustive", 0) for x in h),
        _decided(h[0], "reject", 3),
        _decided(h[1], "undecided", 15),
    ]
    run = _kept(new_run(store), notes)
    run.update(facts={"commit": "0123abcd"})
    write_page(run.folder)
    seen = Page(run.folder.read(FILE).decode())
    assert "No hypothesis was accepted." in seen.text
    assert "Undecided (1)" in seen.text
    assert "model commit 0123abcd" in seen.text
    assert "effects" not in seen.ids
    assert "is not done" not in seen.text
    assert "alignment-table" not in seen.tables
    assert seen.of("intervals") == []


def test_an_undone_run_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    h = [_hypothesis("a", layer) for layer in range(3)]
    run = _kept(
        new_run(tmp_path),
        [*(Proposed(x, "exhaustive", 0) for x in h), _decided(h[0], "reject", 3)],
        "interrupted",
    )
    seen = Page(page(run.folder))
    assert "This run is not done. 2 hypotheses" in seen.text
    assert f"raysearch resume {run.info.id}" in seen.text
    assert "No hypothesis has been accepted yet." in seen.text
    with pytest.raises(StoreError, match="there are no hypotheses in its tables yet"):
        page(new_run(tmp_path / "new").folder)


def test_sets_and_controls_that_do_as_well_are_shown(tmp_path: Path) -> None:
    real, control = _hypothesis("a", 1), _hypothesis("a", 1, control="placebo")
    sets = (SetCount("near", 12, 12, 0.7, 1.0), SetCount("far", 8, 7, 0.4, 1.0))
    notes = [
        Proposed(real, "exhaustive", 0),
        Proposed(control, "exhaustive", 1),
        _decided(real, "accept", 19, sets=sets),
        _decided(control, "accept", 20),
        Estimated(real, 8, 7),
    ]
    seen = Page(page(_kept(new_run(tmp_path), notes).folder))
    rows = [row for table in seen.tables.values() for row in table if "1: residual at last" in row]
    assert ["a", "1: residual at last", "near", "1.000", "0.700 – 1.000", "12", "12"] in rows
    assert ["a", "1: residual at last", "far", "0.875", "0.400 – 1.000", "7", "8"] in rows
    assert "but it is not shown to do better than a control: placebo (1.00)" in seen.text
    assert "1 control was tested beside them, outside K" in seen.text


@pytest.mark.slow  # a whole job
def test_what_was_fit_is_shown_seed_by_seed_with_its_course(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    space = ("subspaces=[{das: [32]}]", "layers=[1]", "positions=[plus2]", "variables=[sum_ab]")
    rest = (
        "fit.steps=120",
        "fit.learning_rate=0.01",
        "fit.seeds=[0, 1]",
        "pairs.fit=256",
        "controls=[random_subspace]",
    )
    sets = [f for s in (*(f"space.{s}" for s in space), *rest) for f in ("--set", s)]
    done = shell("run", str(QUICKSTART), "--pool", "local", "--tracking-uri", "none", "-q", *sets)
    assert done.returncode == 0, done.stderr
    run = find_run(tmp_path / "runs", "latest")
    seen = Page(run.folder.read(FILE).decode())
    fits = ds.dataset(run.path / "tables/fits").to_table().to_pylist()
    ends = sorted(
        (f for f in fits if f["status"] not in (None, "holdout")), key=lambda f: f["seed"]
    )
    head, *body = seen.tables["seeds"]
    told = [dict(zip(head, cells, strict=True)) for cells in body]
    assert [(t["seed"], t["validation IIA"]) for t in told] == [
        (str(f["seed"]), f"{f['validation_iia']:.3f}") for f in ends
    ]
    assert [t["tested"] for t in told].count("yes") == 1
    for f in ends:
        for r in fits:
            if r["seed"] == f["seed"] and r["status"] is None and r["validation_iia"] is not None:
                drawn = [f["seed"], r["step"], r["loss"], r["validation_iia"]]
                (course,) = seen.of("training")
                assert any(row[:4] == pytest.approx(drawn, abs=1e-4) for row in course["fits"])
    assert "random subspace" in seen.tables["alignment-table"][0]
    assert [m["shared"] for m in seen.index["maps"]] == [["das 32"]]


def test_what_attribution_foresaw_is_a_map_that_frames_what_was_asked_about(tmp_path: Path) -> None:
    place = [_hypothesis("a", layer).intervention.units[0] for layer in range(3)]
    taken = replace(place[1], subspace=Subspace(coordinates=(0, 1)))
    asked = [Hypothesis("a", Intervention((unit,))) for unit in (taken, place[2])]
    told = [
        Effect("a", unit, effect, 7)
        for unit, effect in zip(place, (0.125, None, 0.75), strict=True)
    ]
    told.append(Effect("not searched", place[0], 1.0, 7))
    notes = [Weighed(tuple(told)), *(Proposed(h, "attribution", 0) for h in asked)]
    run = _kept(new_run(tmp_path), [*notes, *(_decided(h, "reject", 3) for h in asked)])
    seen = Page(page(run.folder))
    effects = seen.index["effects"]
    assert [m["layers"] for m in effects["maps"]] == [["2", "1", "0"]]
    assert [effects["effect"][h] for h in effects["maps"][0]["cells"]] == [0.75, None, 0.125]
    assert [effects["asked"][h] for h in effects["maps"][0]["cells"]] == [1, 1, 0]
    assert effects["pairs"] == [7, 7, 7, 7]
    assert "effects" in seen.ids


def test_no_text_of_a_user_is_markup(tmp_path: Path) -> None:
    html = page(hostile(tmp_path).folder)
    assert HOSTILE not in html
    assert Page(html).text.count(HOSTILE) > 8
    assert "<img" not in html
    assert html.count("<script") == html.count("</script") == len(data_in(html)[1]) + 2


def _many(run: RunFolder) -> RunFolder:
    """10^4 hypotheses and some: more than any table of a page takes."""
    h = [
        _hypothesis(f"v{v}", layer, f"p{p}")
        for v in range(4)
        for layer in range(40)
        for p in range(70)
    ]
    notes: list[Record] = [Proposed(x, "exhaustive", 0) for x in h]
    verdicts = ("accept", "reject", "undecided", "failed")
    notes += [
        _decided(x, verdicts[i % 40 % 9] if i % 40 % 9 < 4 else "reject", i % 21)
        for i, x in enumerate(h)
    ]
    return _kept(run, notes)


@pytest.mark.slow
def test_ten_thousand_hypotheses_make_a_page_that_says_what_it_leaves_out(tmp_path: Path) -> None:
    html = page(_many(new_run(tmp_path)).folder)
    seen = Page(html)
    accepted = sum(i % 40 % 9 == 0 for i in range(11_200))
    assert len(seen.tables["alignment-table"]) == MAX_ACCEPTED + 1
    assert f"The first {MAX_ACCEPTED} of {accepted}; all: raysearch results" in seen.text
    assert f"The first {MAX_OTHERS} of " in seen.text
    cells = [h for m in seen.index["maps"] for h in m["cells"] if h >= 0]
    assert len(set(cells)) == len(cells) == 11_200
    assert len(html) < 5_000_000
