"""Whole runs by the command line, on the planted model: verdicts, resume after kill -9, what is
left behind."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from raysearch.core.evidence_version import EVIDENCE_VERSION
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, ROOT, Shell
from tests.cluster.worlds import true_cells
from tests.command import DRAWN
from tests.edited import edit_info, unended
from tests.once import Once

LOCAL = ("--pool", "local", "--tracking-uri", "none", "-q")
FEWER = ("--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128")
"""For what is disturbed: two of the five variables of the quick start, with one true place and two,
and half of its pairs."""
VOLATILE = ["worker", "attempt", "seconds", "device"]
COLUMNS = """
    hypothesis intervention variable layer component head position featurizer features units control proposed_by generation
    verdict n matches iia low high keep_n keep_iia copies base_match_unfiltered no_intervention_iia self_swap_iia random_source_iia
    random_source_n holdout_n holdout_iia holdout_low holdout_high
    evidence accept_to reject_from claim population population_size distinct fit reason scores
    baseline baseline_iia margin_low margin_high level part holdout_distinct selected fcr_level fcr_low fcr_high
    fdr_verdict warnings
""".split()  # noqa: SIM905  (a list of 30 strings is no easier to read)


@pytest.fixture(scope="module")
def undisturbed(once: Once) -> Path:
    """The quick start, run once without disturbance; its run folder."""
    return once.searched(QUICKSTART)


@pytest.fixture(scope="module")
def fewer(once: Once) -> Path:
    """The quick start on FEWER variables, without disturbance."""
    return once.searched(QUICKSTART, *FEWER)


def _verdicts(shell: Shell, run: Path | str = "latest") -> dict[str, tuple[Any, ...]]:
    rows = shell.json("results", str(run), "-o", "json")
    return {
        r["hypothesis"]: (r["verdict"], r["n"], r["matches"], r["holdout_n"], r["holdout_iia"])
        for r in rows
    }


def _observations(run: Path) -> pa.Table:
    table = pa.concat_tables(
        pq.ParquetFile(p).read() for p in sorted((run / "tables/observations").glob("*.parquet"))
    )
    return table.drop_columns(VOLATILE).sort_by(
        [(c, "ascending") for c in ("intervention", "split", "block")]
    )


def test_the_quick_start_finds_exactly_the_planted_cells(undisturbed: Path, shell: Shell) -> None:
    rows = shell.json("results", str(undisturbed), "-o", "json")
    assert len(rows) == 120
    assert all(list(r) == COLUMNS for r in rows)
    assert {
        (r["variable"], r["layer"], r["position"]) for r in rows if r["verdict"] == "accept"
    } == true_cells()
    assert {r["claim"] for r in rows} == {"sampler"}


@pytest.mark.slow  # a whole job
def test_units_that_are_interchanged_at_once_find_what_neither_has_alone(shell: Shell) -> None:
    """a and b together make their sum; the job as the run keeps it resumes to the same."""
    sets = [
        [{"layer": 0, "position": p} for p in "ab"],
        [{"layer": 0, "position": "a"}],
        [{"layer": 0, "position": "b"}],
    ]
    job = yaml.safe_load(QUICKSTART.read_text())
    job["model"]["path"] = str(ROOT / "jobs/planted/model")
    job["space"] = {"variables": ["a", "b", "sum_ab"], "units": sets}
    (shell.folder / "job.yaml").write_text(yaml.safe_dump(job))
    assert shell("run", "job.yaml", *LOCAL).returncode == 0
    rows = shell.json("results", "latest", "-o", "json")
    accepted = {
        (r["variable"], r["layer"], r["position"], len(json.loads(r["units"])))
        for r in rows
        if r["verdict"] == "accept"
    }
    assert len(rows) == 9
    assert accepted == {("sum_ab", 0, None, 2), ("a", 0, "a", 1), ("b", 0, "b", 1)}
    again = shell("resume", "latest", "--pool", "local", "-q")
    assert again.returncode == 0, again.stderr
    assert shell.json("results", "latest", "-o", "json") == rows


def test_results_are_chosen_and_written_as_asked(undisturbed: Path, shell: Shell) -> None:
    run = str(undisturbed)
    assert len(shell.json("results", run, "--accepted", "-o", "json")) == 7
    assert {r["variable"] for r in shell.json("results", run, "--variable", "c", "-o", "json")} == {
        "c"
    }
    assert len(shell.json("results", run, "--top", "3", "-o", "json")) == 3
    chosen = shell.json(
        "results", run, "--where", "layer >= 2 and verdict = 'accept'", "-o", "json"
    )
    assert {(r["variable"], r["layer"]) for r in chosen} == {("total", 2), ("total", 3)}
    assert len(shell("results", run, "-o", "jsonl").stdout.splitlines()) == 120
    assert shell("results", run, "-o", "csv").stdout.startswith('"hypothesis","intervention"')
    assert "sum_ab" in shell("results", run).stdout
    wrong = shell("results", run, "--where", "layr > 3")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "layer" in wrong.stderr


def test_n_and_matches_are_what_plain_hooks_compute_from_the_pairs_and_the_model(
    undisturbed: Path, shell: Shell
) -> None:
    """Ten hypotheses at random, by a script that shares nothing with the engine."""
    model = AutoModelForCausalLM.from_pretrained(ROOT / "jobs/planted/model").eval()
    pairs = [
        p
        for p in pq.ParquetFile(undisturbed / "pairs.parquet").read().to_pylist()
        if p["split"] == "test" and p["block"] is not None
    ]
    rows = shell.json("results", str(undisturbed), "-o", "json")
    chosen = np.random.default_rng(0).choice(len(rows), 10, replace=False)
    for row in (rows[i] for i in chosen):
        n = matches = 0
        for pair in pairs:
            wanted = next(
                c["ids"] for c in pair["counterfactual"] if c["variable"] == row["variable"]
            )
            if wanted == pair["base_answer_ids"]:
                continue
            n, matches = (
                n + 1,
                matches + (_by_hand(model, pair, row["layer"], row["position"]) == wanted),
            )
            if n == row["n"]:
                break
        assert (n, matches) == (row["n"], row["matches"]), row


def _by_hand(model: Any, pair: dict[str, Any], layer: int, position: str) -> list[int]:
    source = pair["sources"][0]
    to = next(p["tokens"] for p in pair["base_positions"] if p["name"] == position)
    fro = next(p["tokens"] for p in source["positions"] if p["name"] == position)
    kept: list[torch.Tensor] = []
    block = model.model.layers[layer]
    with torch.no_grad():
        handle = block.register_forward_hook(lambda m, i, o: kept.append(o[0, fro].clone()))
        model(torch.tensor([source["ids"]]))
        handle.remove()

        def put(m: Any, i: Any, o: torch.Tensor) -> torch.Tensor:
            o = o.clone()
            o[0, to] = kept[0]
            return o

        handle = block.register_forward_hook(put)
        logits = model(torch.tensor([pair["base_ids"]])).logits
        handle.remove()
    return [int(logits[0, -1].argmax())]


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 12])
def test_a_driver_killed_with_9_resumes_to_the_same_verdicts_and_observations(
    fewer: Path, shell: Shell, after: int
) -> None:
    run = _killed(shell, after)
    done = shell("resume", str(run), "--pool", "local")
    assert done.returncode == 0, done.stderr
    assert "replayed" in done.stderr
    assert _verdicts(shell, run) == _verdicts(shell, fewer)
    assert _observations(run).equals(_observations(fewer))
    again = shell("resume", str(run), "--pool", "local")
    assert again.returncode == 0, again.stderr
    assert _observations(run).equals(_observations(fewer))


def _killed(shell: Shell, after: int) -> Path:
    """A run whose driver was killed once its journal had so many lines."""
    command = ("run", str(QUICKSTART), *LOCAL, *FEWER, "--set", "resources.rows=8")
    shell.killed(*command, once=lambda journal: journal.count(b"\n") > after)
    run = find_run(shell.folder / "runs", "latest").path
    assert (
        len(_verdicts(shell, run) if list((run / "tables/verdicts").glob("*.parquet")) else {}) < 48
    )
    return run


@pytest.mark.slow_unless(number=[signal.SIGINT])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_says_how_to_go_on(fewer: Path, shell: Shell, number: int) -> None:
    driver = shell.begin("run", str(QUICKSTART), *LOCAL, *FEWER, "--set", "resources.rows=4")
    while not list(shell.folder.glob("runs/*/journal/*/*.jsonl")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.01)
    driver.send_signal(number)
    _, stderr = driver.communicate()
    assert driver.returncode == 130, stderr
    assert "Traceback" not in stderr
    (hint,) = [
        line
        for line in stderr.splitlines()
        if line.startswith("raysearch: interrupted; go on with: ")
    ]
    done = shell(*hint.split("go on with: raysearch ")[1].split(), "-q")
    assert done.returncode == 0, done.stderr
    assert _verdicts(shell) == _verdicts(shell, fewer)


@pytest.mark.slow
def test_two_drivers_cannot_work_on_one_run(shell: Shell) -> None:
    first = shell.begin("run", str(QUICKSTART), *LOCAL, "--set", "resources.rows=1")
    try:
        while not list(shell.folder.glob("runs/*/journal/*/*.jsonl")):
            assert first.poll() is None, "it ended before there was a journal"
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        second = shell("resume", "latest", "--pool", "local")
        assert second.returncode == 2
        assert "works on it now" in second.stderr
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow  # a real Ray
def test_a_run_on_an_embedded_ray_gives_the_same_and_is_mirrored_to_mlflow(
    undisturbed: Path, shell: Shell, migrated_db: Path
) -> None:
    import mlflow

    uri = f"sqlite:///{shell.folder / 'mlflow.db'}"
    (shell.folder / "mlflow.db").write_bytes(migrated_db.read_bytes())
    done = shell("submit", str(QUICKSTART), "--tracking-uri", uri, **DRAWN)
    assert done.returncode == 0, done.stderr
    assert "Alignment" in done.stdout
    assert "Traceback" not in done.stderr
    assert _verdicts(shell) == _verdicts(shell, undisturbed)
    run = find_run(shell.folder / "runs", "latest")
    client = mlflow.MlflowClient(uri)
    kept = client.get_run(run.info.tracking_run_id)
    assert (kept.info.status, kept.data.tags["raysearch.run"]) == ("FINISHED", run.info.id)
    assert (kept.data.metrics["accepted"], kept.data.metrics["rejected"]) == (7, 113)
    assert kept.data.params["test.threshold"] == "0.8"
    assert {a.path for a in client.list_artifacts(kept.info.run_id, "heatmaps")} == {
        f"heatmaps/{v}.png" for v in ("a", "b", "c", "sum_ab", "total")
    }
    assert {"job.yaml", "report.html", "tables", "alignment.json"} <= {
        a.path for a in client.list_artifacts(kept.info.run_id)
    }


@pytest.mark.slow  # a whole job
def test_an_mlflow_out_of_reach_is_said_once_and_changes_nothing(fewer: Path, shell: Shell) -> None:
    uri = "http://127.0.0.1:9"
    done = shell("run", str(QUICKSTART), *FEWER, "--pool", "local", "--tracking-uri", uri, **DRAWN)
    assert done.returncode == 0, done.stderr
    assert sorted(
        p.name for p in (find_run(shell.folder / "runs", "latest").path / "heatmaps").iterdir()
    ) == [
        "sum_ab.png",
        "total.png",
    ]
    lines = [line for line in done.stderr.splitlines() if "127.0.0.1:9" in line]
    assert [" writing to " in line for line in lines].count(False) == 1, "that it failed, once"
    assert _verdicts(shell) == _verdicts(shell, fewer)


def test_resume_refuses_what_would_mix_verdicts(
    shell: Shell, undisturbed: Path, tmp_path: Path
) -> None:
    copy = tmp_path / undisturbed.name

    def refused(edit: Callable[[], object], says: str) -> None:
        shutil.copytree(undisturbed, copy)
        unended(copy)
        edit()
        done = shell("resume", str(copy), "--pool", "local", "-q")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert says in done.stderr
        shutil.rmtree(copy)

    def replace(name: str, before: str, after: str) -> None:
        text = (copy / name).read_text()
        assert before in text
        (copy / name).write_text(text.replace(before, after))

    refused(
        lambda: edit_info(copy, model_digest="0" * 64), "began with a model of digest 000000000000"
    )
    refused(lambda: edit_info(copy, evidence_version=99), "evidence version 99")
    digest = json.loads((undisturbed / "run.json").read_text())["model_digest"]
    refused(lambda: replace("run.json", digest, "0" * 64), "was edited, its checksum is another")
    refused(
        lambda: replace("job.yaml", "threshold: 0.8", "threshold: 0.05"),
        "was edited since the run began",
    )
    refused(
        lambda: replace("job.yaml", "dtype: float32", "dtype: bfloat16"),
        "was edited since the run began",
    )


@pytest.mark.slow
def test_a_run_of_an_earlier_evidence_version_is_read_and_not_gone_on_with(
    shell: Shell, undisturbed: Path
) -> None:
    copy = shell.folder / undisturbed.name
    shutil.copytree(undisturbed, copy)
    edit_info(copy, evidence_version=EVIDENCE_VERSION - 1)
    assert _verdicts(shell, copy) == _verdicts(shell, undisturbed)
    row = shell.json("results", str(copy), "--accepted", "-o", "json")[0]["hypothesis"]
    for looking in (
        ("status", str(copy)),
        ("report", str(copy)),
        ("export", str(copy), row, "--to", "it"),
    ):
        done = shell(*looking)
        assert done.returncode == 0, done.stderr
    store = f"sqlite:///{shell.folder / 'mlflow.db'}"
    replaying = (("sync", str(copy), "--tracking-uri", store),)
    going_on = tuple(
        ("resume", str(copy), *more, "--pool", "local", "-q") for more in ((), ("--retry-failed",))
    )
    for command in replaying + going_on:
        done = shell(*command)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert (
            f"has evidence version {EVIDENCE_VERSION - 1}, this raysearch has {EVIDENCE_VERSION}"
            in done.stderr
        )


def test_another_patch_release_and_another_machine_may_go_on_with_a_run(
    shell: Shell, fewer: Path
) -> None:
    """A copy of the run in another folder, begun by other versions of everything."""
    copy = shell.folder / fewer.name
    shutil.copytree(fewer, copy)
    edit_info(
        copy,
        versions=dict.fromkeys(json.loads((copy / "run.json").read_text())["versions"], "0.0.1"),
    )
    unended(copy)
    done = shell("resume", str(copy), "--pool", "local", "-q")
    assert done.returncode == 0, done.stderr
    assert _verdicts(shell, copy) == _verdicts(shell, fewer)


def test_hypotheses_that_fail_are_told_and_too_many_of_them_exit_with_3(shell: Shell) -> None:
    """A model whose last block puts out numbers that are none: every swap after it fails, and its
    own runs do not."""
    shutil.copytree(ROOT / "jobs", shell.folder / "jobs")
    job = str(shell.folder / "jobs" / "quickstart.yaml")
    broken = shell.folder / "broken.py"
    broken.write_text(BROKEN)
    done = shell.script(broken, "run", job, *LOCAL, *FEWER)
    assert done.returncode == 3, done.stderr
    assert "of 48 hypotheses failed, more than --fail-on-error 0.05" in done.stderr
    assert "raysearch: 12 times: OverflowError: " in done.stderr
    rows = shell.json("results", "latest", "-o", "json")
    failed = {(r["layer"], r["position"]) for r in rows if r["verdict"] == "failed"}
    assert failed == {(3, p) for p in ("a", "plus1", "b", "plus2", "c", "last")}
    run = find_run(shell.folder / "runs", "latest").path
    failures = pa.concat_tables(
        pq.ParquetFile(p).read() for p in (run / "tables/failures").glob("*.parquet")
    ).to_pylist()
    assert {f["error_type"] for f in failures} == {"OverflowError"}
    assert all("Traceback" in f["traceback"] for f in failures)
    tolerant = shell.script(broken, "run", job, *LOCAL, *FEWER, "--fail-on-error", "0.5")
    assert tolerant.returncode == 0


BROKEN = """
import raysearch.engine.replica as replica
from raysearch.cli.main import main
real = replica.build_row
def build_row(pair, intervention, *more):
    if intervention.units[0].site.layer == 3:
        raise OverflowError("this layer cannot be written")
    return real(pair, intervention, *more)
replica.build_row = build_row
main()
"""
"""The command with an engine that cannot write one layer: an error of ours, as a bug would make it.
"""
