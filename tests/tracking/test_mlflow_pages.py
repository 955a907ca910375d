"""What MLflow's own pages go by: the experiment's kind and view, a description, an address. Real
MLflow, real SQLite."""

import html
import json
from collections.abc import Sequence

import pyarrow as pa
import pytest
from markdown_it import MarkdownIt

from raysearch.markdown_text import literal
from raysearch.report.run_results import RunResults
from raysearch.tracking.description import MAX_VARIABLES, describe
from raysearch.tracking.mlflow import MlflowTracker
from raysearch.tracking.mlflow_pages import address
from raysearch.tracking.tracker import TrackedRun
from tests.store.books import HYPOTHESES, decided

VIEW = "mlflow.sharedViewState.raysearch"
TAGS = {"raysearch.run": "capitals-1", "raysearch.model": "models/a"}


def tracked(uri: str, variables: Sequence[str] = (), run_id: str | None = None) -> MlflowTracker:
    return MlflowTracker(
        TrackedRun(
            uri, "raysearch/x", {}, TAGS, run_id=run_id, variables=variables,
            source="capitals.py", commit="0123456789abcdef",
        )
    )  # fmt: skip


def client(uri: str):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def columns(view: str) -> list[str]:
    found: list[str] = json.loads(json.loads(view)["state"])["selectedColumns"]
    return found


def test_an_experiment_is_of_training_and_has_a_view_with_best_iia_and_counts(
    tracking: str,
) -> None:
    first = tracked(tracking, ["country", "a b"])
    first.write_records([decided(HYPOTHESES[0])])
    first.describe("**47 accepted**" + 900 * "!")
    assert first.close("done")
    mlflow = client(tracking)
    run = mlflow.get_run(first.run_id)
    experiment = mlflow.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    shown = columns(experiment.tags[VIEW])
    assert {"metrics.`iia/country`", "metrics.`accepted`", "metrics.`pairs`"} <= set(shown)
    assert {"tags.`raysearch.model`", "tags.`raysearch.status`"} <= set(shown)
    assert sum("iia/" in name for name in shown) == 2
    assert run.data.tags["mlflow.note.content"] == "**47 accepted**" + 900 * "!"
    assert run.data.tags["mlflow.source.name"] == "capitals.py"
    assert run.data.tags["mlflow.source.git.commit"] == "0123456789abcdef"
    assert first.address is None, "a file has no page"


def test_what_somebody_chose_for_an_experiment_stays_and_columns_are_only_added(
    tracking: str,
) -> None:
    mlflow = client(tracking)
    experiment = mlflow.create_experiment("raysearch/x")
    mlflow.set_experiment_tag(experiment, "mlflow.experimentKind", "genai_development")
    mlflow.set_experiment_tag(experiment, VIEW, "no JSON")
    assert tracked(tracking, ["country"]).close("done")
    tags = mlflow.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "genai_development"
    before = columns(tags[VIEW])
    assert tracked(tracking, ["relation"]).close("done")
    after = columns(mlflow.get_experiment(experiment).tags[VIEW])
    assert after == [*before, "metrics.`iia/relation`"]


@pytest.mark.parametrize("gone", ["deleted", "unknown"])
def test_a_resumed_run_that_is_gone_from_mlflow_begins_another(tracking: str, gone: str) -> None:
    first = tracked(tracking)
    assert first.close("interrupted")
    assert first.run_id is not None
    mlflow = client(tracking)
    if gone == "deleted":
        mlflow.delete_run(first.run_id)
    again = tracked(tracking, run_id=first.run_id if gone == "deleted" else 32 * "0")
    assert again.close("done"), again.why
    assert again.run_id not in (None, first.run_id)
    assert mlflow.get_run(again.run_id).info.status == "FINISHED"


def test_an_address_is_of_the_view_of_model_training_and_has_no_password() -> None:
    there = "/#/experiments/3/runs/ab?workflowType=machine_learning"
    assert address("https://me:secret@host:5/ml/", "3", "ab") == f"https://host:5/ml{there}"
    assert address("sqlite:////tmp/mlflow.db", "3", "ab") is None
    assert address("databricks", "3", "ab") is None


def row(variable: str, verdict: str | None, iia: float | None, **more: object) -> dict[str, object]:
    site = {"layer": 3, "component": "residual", "position": "last", "head": None}
    units = [{"site": site, "subspace": {"featurizer": "identity"}}]
    known = {"low": 0.5, "high": 1.0, "n": 12, "holdout_iia": None, "control": None}
    return {
        "variable": variable, "verdict": verdict, "units": json.dumps(units), "iia": iia,
        **known, **more,
    }  # fmt: skip


def described(*rows: dict[str, object]) -> str:
    return describe(RunResults(pa.Table.from_pylist(list(rows))), "Accepted: a claim.", "IIA")


def test_a_description_says_what_was_found_of_each_variable() -> None:
    text = described(
        row("country", "accept", 0.96875, holdout_iia=0.9),
        row("country", "reject", 0.25),
        row("relation", "undecided", 0.7),
        row("answer", None, None),
    )
    assert text.split("\n\n") == [
        "**1 accepted, 1 rejected, 1 undecided, 1 not decided yet**, of 4 hypotheses. The "
        "best site of each variable (accepted before undecided ones, then by the lower end of the "
        "interval; chosen among many, so that its mean tends to be too high: go by the holdout):",
        "- **country**: 1 of 2 accepted; 3: residual at last: IIA 0.97 (0.50 to 1.00) of 12 pairs, "
        "holdout 0.90\n"
        "- **relation**: 0 of 1 accepted; 3: residual at last: IIA 0.70 (0.50 to 1.00) of 12 "
        "pairs, undecided\n"
        "- **answer**: 0 of 1 accepted",
        "Accepted: a claim.",
    ]


def test_a_description_of_many_variables_with_wild_names_stays_short_and_literal() -> None:
    rows = [row(f"<b>*{i}*_[x](http://x) @me $x$ :a:", "reject", 0.0) for i in range(30)]
    text = described(*rows)
    assert len(text.splitlines()) == MAX_VARIABLES + 1 + 4
    assert f"- and {30 - MAX_VARIABLES} more" in text
    assert not set("<@$") & set(text)


@pytest.mark.parametrize(
    "text",
    ["<script>x</script> &amp; & &#36;", "a*b*_c_ `d` [e](f) ![g](h)", "# 1 ~x~ $y$ @z :smile:",
     "https://a.b www.c.d", "3: last", "back\\slash\\*", "a|b"],
)  # fmt: skip
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    shown = MarkdownIt("commonmark").render(literal(text))
    inside = shown.removeprefix("<p>").removesuffix("</p>\n")
    assert "<" not in inside
    assert html.unescape(inside) == text.replace("|", "/")
