"""`raysearch schema`: what editors complete job files by says what the keys say, and so does the
page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from raysearch.core.featurizers import featurizers
from raysearch.job import Job
from raysearch.job.schema import job_schema
from tests.cli.conftest import ROOT, Shell

PAGE = ROOT / "docs" / "reference" / "job-file.md"
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
LEAST: dict[str, Any] = {
    "name": "x",
    "model": {"path": "owner/name"},
    "problem": {"use": "raysearch.problems.capitals"},
}


@pytest.fixture(scope="module")
def valid() -> Draft202012Validator:
    return Draft202012Validator(job_schema())


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for room in (schema, *schema["$defs"].values()):
        yield from (
            (f"{room['title']}.{key}", value) for key, value in room.get("properties", {}).items()
        )


def test_the_command_prints_a_schema_that_is_one_and_nothing_else(shell: Shell) -> None:
    said = shell.json("schema")
    Draft202012Validator.check_schema(said)
    assert said == json.loads(json.dumps(job_schema()))
    assert said["title"] == "A job of raysearch"


def test_every_key_says_what_it_means_and_has_its_default(valid: Draft202012Validator) -> None:
    whole = valid.schema
    silent = []
    for name, value in properties(whole):
        meant = whole["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
        if not meant.get("description"):
            silent.append(name)
        assert "\n" not in meant.get("description", ""), name
    assert not silent
    assert whole["$defs"]["TestKeys"]["properties"]["threshold"]["default"] == 0.8


@pytest.mark.parametrize("path", JOBS, ids=lambda p: p.stem)
def test_the_jobs_of_this_repository_are_valid_as_written_and_as_resolved(
    valid: Draft202012Validator, path: Path
) -> None:
    assert not [e.message for e in valid.iter_errors(yaml.safe_load(path.read_text()))]
    assert not [e.message for e in valid.iter_errors(yaml.safe_load(Job.load(path).to_yaml()))]


@pytest.mark.parametrize("name", [name for name in featurizers() if name != "identity"])
def test_a_unit_of_a_featurizer_is_not_in_the_schema(
    valid: Draft202012Validator, name: str
) -> None:
    for subspace in (name, {name: [1]}, {name: {}}):
        units = [[{"layer": 0, "position": "last", "subspace": subspace}]]
        assert list(valid.iter_errors({**LEAST, "space": {"units": units}})), subspace
    plain = {"layer": 0, "position": "last", "subspace": "full"}
    assert valid.is_valid({**LEAST, "space": {"units": [[plain]]}})
    assert valid.is_valid(LEAST)


@pytest.mark.parametrize(
    "space",
    [
        {"layer": [1]},
        {"components": ["residuals"]},
        {"subspaces": [{"das": [1], "pca": [1]}]},
        {"layers": {"from": 1}},
    ],
)
def test_what_is_misspelt_is_seen_by_an_editor(
    valid: Draft202012Validator, space: dict[str, Any]
) -> None:
    assert list(valid.iter_errors({**LEAST, "space": space}))


def test_the_page_is_what_the_command_prints(shell: Shell) -> None:
    said = shell("schema", "--markdown").stdout
    assert PAGE.read_text() == said, "run: raysearch schema --markdown > docs/reference/job-file.md"
    for key in ("`space.units[][].source_site`", "| `threshold` | number > 0, < 1 | `0.8` |"):
        assert key in said
