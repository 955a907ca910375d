"""MLflow's own pages of a real search, clicked through in a real browser: the run with its dataset,
figures, pictures, the report."""

import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raysearch.tracking.mlflow_pages import VIEW
from tests.browser import browser
from tests.cli.conftest import QUICKSTART, Shell
from tests.command import DRAWN
from tests.deploy.processes import running
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = ("--set", "pairs.test=64", "--set", "pairs.holdout=16", "--set", "space.layers=[0, 1]")


@dataclass(frozen=True)
class Told:
    """A server that was told of a search. `names`: of the accepted hypotheses' runs."""

    uri: str
    run: str
    dataset: str
    names: tuple[str, ...]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, migrated_db: Path) -> Iterator[Told]:
    folder, port = tmp_path_factory.mktemp("mlflow-pages"), free_port()
    shutil.copy(migrated_db, folder / "mlflow.db")
    uri = f"http://127.0.0.1:{port}"
    command = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
        f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}", f"--artifacts-destination={folder / 'artifacts'}",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with running(command, folder / "log", lambda: _healthy(uri), env=environment, cwd=folder):
        shell = Shell(folder)
        flags = ("--pool", "local", "-q", "--tracking-uri", uri, "--mlflow-children", "2")
        done = shell("run", str(QUICKSTART), *SMALL, *flags, **DRAWN)
        assert done.returncode == 0, done.stderr
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("raysearch/quickstart").experiment_id
        found = client.search_runs([experiment])
        (parent,) = (r for r in found if "mlflow.parentRunId" not in r.data.tags)
        children = tuple(r.info.run_name for r in found if r is not parent)
        digest = parent.data.params["pairs_digest"]
        runs = f"{uri}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        yield Told(f"{runs}&viewStateShareKey={VIEW}", parent.info.run_name, digest, children)


def test_runs_figures_and_files_of_a_search_are_clicked_through(told: Told, tmp_path: Path) -> None:
    assert len(told.names) == 2, "as many children as were asked for, of more that were accepted"
    with browser(1360, 900) as opened:
        opened.get(told.uri)
        for column in ("Best IIA and counts", "accepted", "iia/a"):  # others are beyond the edge
            _text(opened, column)
        assert opened.save_screenshot(str(tmp_path / "list.png"))
        _click(opened, f"//a[contains(., '{told.run}')]")
        for shown in (
            "The best site of each variable",
            f"raysearch.problems.add_three ({told.dataset})",
            "accepted",
            "best_iia/total/layer_1",
            "model_digest",
            "raysearch.job_hash",
            "raysearch.proposer",
        ):
            _text(opened, shown)
        _click(
            opened, "//*[@role='tab' or self::a or self::button][normalize-space()='Model metrics']"
        )
        _text(opened, "best_iia/sum_ab")
        _wait(
            opened,
            lambda: len(opened.find_elements("css selector", ".js-plotly-plot .main-svg")) >= 2,
        )
        assert opened.save_screenshot(str(tmp_path / "metrics.png"))
        _click(opened, "//*[@role='tab' or self::a or self::button][normalize-space()='Artifacts']")
        for file in (
            "alignment.json",
            "job.yaml",
            "report.html",
            "results.json",
            "run.json",
            "tables",
        ):
            _text(opened, file)
        _click(opened, "//*[normalize-space()='heatmaps']")
        _click(opened, "//*[normalize-space()='sum_ab.png']")
        _wait(opened, lambda: _drawn(opened))
        assert opened.save_screenshot(str(tmp_path / "artifacts.png"))
        _click(opened, "//*[normalize-space()='report.html']")
        _wait(opened, lambda: opened.find_elements("css selector", "iframe"))
        severe = [e["message"] for e in opened.get_log("browser") if e["level"] == "SEVERE"]
    assert [m for m in severe if "/users/current" not in m and "ResizeObserver" not in m] == []
    assert all(
        (tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("metrics", "artifacts")
    )


def _wait(opened: Any, look: Callable[[], object]) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    # A page that is drawn anew takes its elements away while they are looked at.
    WebDriverWait(opened, 240, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda _: look()
    )


def _text(opened: Any, text: str) -> None:
    """Waits for it to be seen."""
    from selenium.common.exceptions import TimeoutException

    try:
        _wait(opened, lambda: text in opened.find_element("css selector", "body").text)
    except TimeoutException as e:
        raise AssertionError(
            f"no {text!r} in: {opened.find_element('css selector', 'body').text}"
        ) from e


def _click(opened: Any, path: str) -> None:
    """The deepest element of that path, once it is there and nothing lies over it."""
    from selenium.common.exceptions import WebDriverException

    def tried() -> bool:
        try:
            opened.find_elements("xpath", path)[-1].click()
        except (IndexError, WebDriverException):
            return False
        return True

    _wait(opened, tried)


def _drawn(opened: Any) -> bool:
    """Whether the picture of an artifact has come: one that is wider than any icon."""
    return bool(
        opened.execute_script(
            "return [...document.querySelectorAll('img')].some(i => i.complete && i.naturalWidth > "
            "300)"
        )
    )


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
