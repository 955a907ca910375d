"""What a reader copies from README.md: its Python runs, and prints what stands beneath it; its job keys are keys."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from raysearch.job import Job

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.model
@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="no models/: make install fetches it")
def test_the_notebook_lines_run_and_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.split("## Look first")[1].split("\n## ")[0]
    first, second = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(first, names)
        exec(second, names)
    shown = re.search(r"^    (residual, layer 9.*)$", section, re.MULTILINE)
    assert shown
    assert printed.getvalue().strip() == shown.group(1)
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    scan = names["scan"]
    changed = {
        layer: [t for t, new in enumerate(tokens) if new == " Rome"] for layer, tokens in enumerate(scan.next_tokens)
    }
    assert changed == {layer: [3] if layer <= 22 else [4] for layer in range(30)}  # as the text beneath says


def _jobs(folder: Path) -> list[Job]:
    """The parts of a job in the README, each in a job of its own."""
    whole = {"name": "x", "model": {"path": "owner/name"}, "problem": {"use": "raysearch.problems.capitals"}}
    parts = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    return [Job.parse({**whole, **yaml.safe_load(part)}, folder=folder) for part in parts if part.startswith("space:")]


def test_the_spaces_of_the_readme_are_spaces(tmp_path: Path) -> None:
    job, trained = _jobs(tmp_path)
    names = [s.featurizer for s in trained.space.meant_subspaces]
    assert names == ["das"] * 3 + ["boundless", "mask", "pca", "random", "sae"]
    assert trained.fit.rungs == (100,)
    assert len(trained.controls) == 4
    assert job.space.components == ("residual", "head")
    assert [len(units) for units in job.space.units] == [2, 1]
