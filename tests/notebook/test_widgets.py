"""What cells show does not depend on whether ipywidgets is there: with it tqdm, which others
import, makes bars, without it tqdm warns."""

import importlib.util
from pathlib import Path

import pytest

from tests.cli.conftest import QUICKSTART, ROOT
from tests.engine.loading.test_load import write_gguf
from tests.engine.worlds import model_of
from tests.notebook.kernel import hide_ipywidgets, kernel

CELLS = (
    "import raysearch as rs",
    f"model = rs.Model.load({str(ROOT / 'jobs/planted/model')!r}); model.swap('3+5+4=', '1+1+4=', "
    f"layer=1, position=3).after > 0",
    "rs.Model.load('tiny.gguf').tokens('ab a')",
    f"job = rs.Job.load({str(QUICKSTART)!r}, ['pairs.test=24', 'pairs.holdout=4', "
    f"'test.max_pairs=24', 'space.layers=[1]'])",
    "run = rs.run(job, quiet=True); len(run.results())",
    "'ipywidgets' in __import__('sys').modules",
)


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False], ids=["with ipywidgets", "without"])
def test_a_cell_shows_its_own_output_and_nothing_else(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert importlib.util.find_spec("ipywidgets") is not None, "make install brings it"
    write_gguf(model_of("llama"), tmp_path / "tiny.gguf")
    if not there:
        hide_ipywidgets(tmp_path / "hidden", monkeypatch)
    with kernel(tmp_path) as cell:
        said = [cell(code) for code in CELLS]
    assert said == [
        [],
        ["True"],
        ["('ab', ' ', 'a')"],
        [],
        ["30"],
        [str(there)],
    ]
