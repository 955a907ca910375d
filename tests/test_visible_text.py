"""Whatever a user calls things, names are shown as they are: in every output of a search whose
names are made to break each of them."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pyarrow.csv as csv
import pytest
import yaml
from rich.console import Console

import raysearch
from raysearch import draw_pairs
from raysearch.cli.flags import completions
from raysearch.cli.main import cli
from raysearch.cli.terminal import PlainTable
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.deploy.launchers import Slurm
from raysearch.deploy.settings import for_slurm
from raysearch.errors import JobError, StoreError
from raysearch.interventions.card import ModelOrigin
from raysearch.interventions.saved_intervention import save_intervention
from raysearch.problems import load_problem
from raysearch.report.figure import scan_picture
from raysearch.report.heatmap import heatmap
from raysearch.runner.session.progress_display import ProgressDisplay
from raysearch.storage.digests_json import checksum
from raysearch.store.run_folder import RunFolder
from raysearch.tracking.mlflow_names import as_value, as_word
from raysearch.viewer.page import data_in
from raysearch.visible_text import OneLine, visible
from tests.cli.conftest import QUICKSTART
from tests.command import HEATMAPS
from tests.store.books import new_run

VARIABLES = {
    "a": "$lo_$",
    "b": "[/INST]\x1b[31m$",
    "c": "=cmd()|'/C calc'!A0",
    "sum_ab": "</script><img src=x onerror=alert(1)>",
    "total": "..//\u202eetc\nraysearch: forged\x07",
}
POSITIONS = {
    "a": "[mask]",
    "plus1": "[/bold] :smile: [link=file:///x]y[/link]",
    "b": "{x} %s %(a)d {{ y }}",
    "plus2": "国😀\u200bé$\\frac",
    "c": "n" * 300,
}
NASTY = ("\x1b", "\x07", "\u202e", "\u200b")
PLANTED = QUICKSTART.parent / "planted" / "model"


@dataclass(frozen=True)
class Said:
    out: str
    err: str


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job whose variables, positions and texts are nasty."""
    folder = tmp_path_factory.mktemp("nasty")
    pairs = draw_pairs(
        load_problem("raysearch.problems.add_three", {}),
        tuple(VARIABLES),
        {"test": 64, "holdout": 16},
        0,
    )
    with (folder / "pairs.jsonl").open("w") as file:
        for pair in pairs:
            sides = {
                side: _input(i)
                for side, i in (("base", pair.base), ("source", pair.sources["source"]))
            }
            answers = {side: pair.answers[side] for side in sides}
            expected = {VARIABLES[v]: answer for v, answer in pair.counterfactual.items()}
            line = {**sides, "answers": answers, "counterfactual": expected, "split": pair.split}
            file.write(json.dumps(line) + "\n")
    job = {
        "name": "nasty",
        "model": {"path": str(PLANTED)},
        "problem": {"pairs": "pairs.jsonl"},
        "pairs": {"test": 64, "holdout": 16, "fit": 0},
        "space": {
            "layers": "all",
            "positions": [*POSITIONS.values(), "last"],
            "variables": list(VARIABLES.values()),
        },
        "test": {"max_pairs": 64},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder


def _input(of: Any) -> dict[str, Any]:
    return {
        "text": of.text,
        "positions": {POSITIONS[name]: list(span) for name, span in of.spans.items()},
    }


@pytest.fixture
def call(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """`raysearch`, in this process."""
    monkeypatch.chdir(asked)
    monkeypatch.setenv("RAYSEARCH_STORE", str(asked / "runs"))

    def called(*arguments: str) -> Said:
        code = cli.main(args=list(arguments), prog_name="raysearch", standalone_mode=False)
        assert not code, capsys.readouterr().err
        said = capsys.readouterr()
        return Said(said.out, said.err)

    return called


@pytest.fixture
def ran(asked: Path, call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> Said:
    """The run, begun by the first test that asks for it."""
    if (asked / "said").exists():
        return Said(*json.loads((asked / "said").read_text()))
    monkeypatch.setenv(HEATMAPS, "on")
    said = call("run", "job.yaml", "--pool", "local", "--tracking-uri", "none")
    (asked / "said").write_text(json.dumps([said.out, said.err]))
    return said


def _check_plain(text: str) -> None:
    """Nothing in `text` is obeyed by a terminal, and no line is forged."""
    assert not [c for c in NASTY if c in text]
    assert not [line for line in text.splitlines() if line.startswith("raysearch: forged")]


@pytest.mark.slow  # a whole job
def test_a_search_of_nasty_names_comes_to_its_end_and_names_them_as_they_are(
    ran: Said, call: Callable[..., Said]
) -> None:
    for text in (ran.out, ran.err, call("plan", "job.yaml").out, call("status").out):
        _check_plain(text)
    assert "Alignment: accepted" in ran.out
    assert "[mask]" in ran.out
    assert "$lo_$" in ran.out


@pytest.mark.slow
def test_results_show_every_name_in_every_format(
    asked: Path, ran: Said, call: Callable[..., Said]
) -> None:
    _check_plain(table := call("results", "latest").out)
    folded = "".join(table.split())
    for name in (
        "[mask]",
        "[/INST]\\x1b[31m$",
        "{x}",
        "%(a)d",
        ":smile:",
        "[link=file:///x]y[/lin",  # the column is no wider
    ):
        assert "".join(name.split()) in folded or name in table, name
    rows = json.loads(call("results", "latest", "-o", "json").out)
    assert {row["variable"] for row in rows} == set(VARIABLES.values())
    assert {row["position"] for row in rows} == {*POSITIONS.values(), "last"}
    lines = call("results", "latest", "-o", "jsonl").out
    assert [json.loads(line) for line in lines.splitlines()] == rows
    few = call(
        "results", "latest", "--variable", VARIABLES["total"], "--top", "1", "-o", "json"
    ).out
    assert json.loads(few)[0]["variable"] == VARIABLES["total"]
    assert not ran.err.count("\x1b")


@pytest.mark.slow
def test_results_for_programs_keep_the_names(ran: Said, call: Callable[..., Said]) -> None:
    content = BytesIO(call("results", "latest", "-o", "csv").out.encode())
    table = csv.read_csv(content, parse_options=csv.ParseOptions(newlines_in_values=True))
    assert set(table["variable"].to_pylist()) == set(VARIABLES.values())


@pytest.mark.slow
def test_each_variable_has_pictures_of_its_own_and_no_name_leads_out(
    asked: Path, ran: Said
) -> None:
    (run,) = (asked / "runs").iterdir()
    pictures = list((run / "heatmaps").iterdir())
    assert len(pictures) == len(VARIABLES)
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    assert all(p.name.isprintable() and len(p.name.encode()) < 200 for p in pictures)
    drawn = heatmap(run, VARIABLES["a"])
    drawn.png()
    texts = [t.get_text() for t in drawn.findobj(lambda artist: hasattr(artist, "get_parse_math"))]
    assert any("$lo_$" in text for text in texts)
    assert not any(
        t.get_parse_math() for t in drawn.findobj(lambda artist: hasattr(artist, "get_parse_math"))
    )


def test_the_page_shows_names_and_runs_none_of_them(
    asked: Path, ran: Said, call: Callable[..., Said]
) -> None:
    (run,) = (asked / "runs").iterdir()
    call("report", "latest")
    html = (run / "report.html").read_text()
    assert "<img" not in html
    assert html.count("<script") == html.count("</script>") == len(data_in(html)[1]) + 2
    assert "\\u003c/script>\\u003cimg src=x onerror=alert(1)>" in html
    assert not [c for c in NASTY if c in html]


def test_a_notebook_shows_the_run_and_its_names(asked: Path, ran: Said) -> None:
    run = raysearch.Run.open("latest", store=str(asked / "runs"))
    for shown in (repr(run), run._repr_html_()):
        _check_plain(shown)
    assert "<img" not in run._repr_html_()
    assert "$lo_$" in repr(run)


def test_an_export_says_names_as_text(asked: Path, ran: Said, call: Callable[..., Said]) -> None:
    rows = json.loads(call("results", "latest", "-o", "json", "--accepted").out)
    for row in rows[:3]:
        to = asked / f"found-{row['hypothesis']}"
        call("export", "latest", row["hypothesis"], "--to", str(to))
        _check_plain(readme := (to / "README.md").read_text())
        assert "<img" not in readme.replace("\\<", "").replace("`<", "")
        assert raysearch.load_intervention(to).variable == row["variable"]


@pytest.mark.parametrize(
    "name",
    ["a `` b ` c", "[x](https://evil.example) ![y](z) <b> &lt; $x^2$ ~~s~~ @who www.evil.example"],
)
def test_a_readme_reads_no_markup_into_a_name(tmp_path: Path, name: str) -> None:
    intervention = Intervention((Unit(Site(0, "residual", name), Subspace()),))
    save_intervention(
        intervention, tmp_path, variable=name, model=ModelOrigin(f"/m/{name.replace('/', '')}")
    )
    text = (tmp_path / "README.md").read_text()
    title = next(line for line in text.splitlines() if line.startswith("# "))
    assert not [
        m
        for m in ("](", "<b>", " ~~", " $", " @", "https://", "www.e")
        if m in title.replace("\\]", "")
    ]
    if "``" in name:
        assert "``` a `` b ` c ```" in text


@pytest.mark.parametrize(
    "name", [*VARIABLES.values(), *POSITIONS.values(), "\x00", "\ud800", "tab\there"]
)
def test_no_line_of_ours_obeys_a_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    handler = logging.StreamHandler(stream := StringIO())
    handler.setFormatter(OneLine("raysearch: %(message)s"))
    handler.handle(logging.makeLogRecord({"msg": "of %s", "args": (name,)}))
    ProgressDisplay(
        quiet=False, no_color=True, console=(console := Console(file=StringIO(), width=1000))
    ).say(f"loading {name}")
    table = PlainTable()
    table.column(name)
    table.row([name])
    console.print(table)
    error = JobError(f"{name}: is wrong")
    for text in (stream.getvalue().removesuffix("\n"), str(error)):
        assert text.isprintable() or "\u200d" in text
        assert visible(name) in text
    assert visible(visible(name)) == visible(name)
    assert f"loading {visible(name)}" in console.file.getvalue()  # type: ignore[attr-defined]
    _check_plain(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("tokens", [("$x_{$", " <b>"), ("\n", "a\nb"), ("\x1b[0m", "国😀")])
def test_a_scan_is_drawn_of_any_tokens(tokens: Sequence[str]) -> None:
    picture = scan_picture(
        "of $\\frac$\nput", "$label_$", [0], tokens, [[0.0, 1.0]], [["$y_$", "\x07"]]
    )
    assert picture.png().startswith(b"\x89PNG")


def test_what_a_shell_would_run_is_not_offered_as_a_completion() -> None:
    assert completions(["a-1", "$(x)-1", "b;rm", "c d", "é", "latest"], "") == [
        "a-1",
        "é",
        "latest",
    ]


def test_names_that_mlflow_takes_are_not_taken_for_each_other() -> None:
    names = [*VARIABLES.values(), "a b", "a_b", "a.b", "x" * 300, "x" * 301]
    assert len({as_word(name) for name in names}) == len(names)
    assert as_word("sum_ab") == "sum_ab"
    assert as_value("\x00\u202ea\nb", 100) == "\\x00\\u202ea\nb"


def test_a_run_whose_id_is_no_name_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    info = json.loads((run.path / "run.json").read_text())
    planted = info | {"id": "x' OR '1'='1; $(touch y)"}
    (run.path / "run.json").write_text(json.dumps(planted | {"sum": checksum(planted)}))
    with pytest.raises(StoreError, match="its id is"):
        RunFolder.open(run.path)


@pytest.mark.parametrize(
    "flag", [{"partition": "p\n#SBATCH --wrap=x"}, {"account": "a b"}, {"time": "1 # x"}]
)
def test_a_cluster_file_takes_no_line_from_a_flag(flag: dict[str, str]) -> None:
    with pytest.raises(JobError, match=f"--{next(iter(flag))}"):
        for_slurm(QUICKSTART, Slurm(**flag))  # type: ignore[arg-type]
