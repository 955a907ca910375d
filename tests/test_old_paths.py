"""Import paths that users were told of once: they work, and say the new one; everything that a
user's file needs is a name of raysearch."""

import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import raysearch as rs
from raysearch.engine.featurizers.linear_subspace import LinearSubspace
from raysearch.errors import JobError
from raysearch.notebook.views import Answers
from raysearch.problems import load_problem
from raysearch.report.row_sequence import Rows
from tests.command import environment, forked

ROOT = Path(__file__).parents[1]
OF_DEVELOPERS = {"decisions", "extend-by-a-package.md"}
USERS_PAGES = [p for p in (ROOT / "docs").rglob("*.md") if not OF_DEVELOPERS & set(p.parts)]
OLD = {
    "raysearch.causal": (
        "CausalModel",
        "Input",
        "Pair",
        "Problem",
        "Setting",
        "Value",
        "Variable",
        "draw_pairs",
    ),
    "raysearch.problems.text_template": ("fill",),
    "raysearch.search.hypothesis": ("Hypothesis", "Intervention", "Site", "Subspace", "Unit"),
}


def _python(code: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in OLD.items() for name in names]
)
def test_an_old_path_gives_the_same_thing_and_a_warning_on_the_users_line(
    module: str, name: str
) -> None:
    found: dict[str, Any] = {}
    code = compile(f"\n\nfrom {module} import {name}\n", "theirs.py", "exec")
    with pytest.warns(
        DeprecationWarning,
        match=rf"^{module}\.{name} is now raysearch\.{name}: write .* rs\.{name};",
    ) as told:
        exec(code, {"__name__": "theirs"}, found)
    assert [(w.filename, w.lineno) for w in told] == [("theirs.py", 3)]
    assert found[name] is getattr(rs, name)


def test_every_module_that_has_moved_is_found_at_its_old_path(tmp_path: Path) -> None:
    table = json.loads((ROOT / "raysearch" / "old_paths.json").read_text())
    code = (
        "import warnings\n"
        "from importlib import import_module\n"
        "warnings.simplefilter('error')\n"
        f"for old, new in {table['modules']!r}.items():\n"
        "    old, new = import_module(f'raysearch.{old}'), import_module(f'raysearch.{new}')\n"
        f"    for before, now in {table['names']!r}.get(new.__name__[10:], {{}}).items():\n"
        "        place, _, now = now.rpartition(':')\n"
        "        home = import_module(f'raysearch.{place}') if place else new\n"
        "        assert getattr(old, before) is getattr(home, now), before\n"
    )
    (tmp_path / "code.py").write_text(code)
    done = forked((), tmp_path, environment(), tmp_path / "code.py", anew=True)
    assert done.returncode == 0, done.stderr


def test_modules_of_the_release_before_are_found_and_a_featurizer_extends_what_is_in_one() -> None:
    found: dict[str, Any] = {}
    lines = (
        "from raysearch.engine.featurizers.spans import LinearSubspace\n"
        "from raysearch.engine.training.recipe import optimizer_of\n"
        "from raysearch.report import rows\n"
        "of_rows = rows.Rows\n"
        "class Mirror(LinearSubspace):\n"
        "    name = 'mirror'\n"
    )
    with pytest.warns(DeprecationWarning, match="goes with the next release") as told:
        exec(compile(lines, "theirs.py", "exec"), {"__name__": "theirs"}, found)
    homes = {w.lineno: str(w.message).partition(" is now ")[2].partition(":")[0] for w in told}
    assert homes == {
        1: "raysearch.engine.featurizers.linear_subspace.LinearSubspace",
        2: "raysearch.engine.training.optimizer.optimizer_of",
        4: "raysearch.report.row_sequence.Rows",
    }
    assert found["Mirror"].__mro__[1] is LinearSubspace
    assert found["of_rows"] is Rows


def test_a_name_that_is_called_otherwise_is_found_and_named() -> None:
    found: dict[str, Any] = {}
    code = compile("from raysearch.search.proposers import Known\n", "theirs.py", "exec")
    with pytest.warns(DeprecationWarning, match=r"is now raysearch\.proposers\.base\.History:"):
        exec(code, {"__name__": "theirs"}, found)
    assert found["Known"].__name__ == "History"
    with pytest.raises(ImportError, match="Unheard"):
        exec("from raysearch.search.proposers import Unheard", {"__name__": "theirs"})


def test_an_attribute_that_is_called_otherwise_is_read_by_its_old_name() -> None:
    answers = Answers(" a", " b", 1, 2, (" c", " d"), (3, 4))
    with pytest.warns(DeprecationWarning, match=r"Answers\.said is now predicted"):
        assert answers.said == answers.predicted == (" c", " d")
    with pytest.warns(DeprecationWarning, match=r"Answers\.said_ids is now predicted_ids"):
        assert answers.said_ids == (3, 4)


def test_an_attribute_warns_as_an_import_does_and_pickle_does_not() -> None:
    code = "import pickle, raysearch.causal as c\npickle.loads(pickle.dumps(c.Input('x')))"
    done = _python(code, "-W", "default")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("DeprecationWarning") == 1


def test_nothing_of_raysearch_itself_takes_an_old_path() -> None:
    code = (
        "import raysearch.runner.resolution.resolved_job, raysearch.search.search, "
        "raysearch.problems.capitals, raysearch as rs\n"
        "rs.Problem, rs.Unit, rs.fill"
    )
    done = _python(code, "-W", "error:raysearch:DeprecationWarning")
    assert done.returncode == 0, done.stderr


def test_a_users_file_is_told_once_though_it_is_not_main_and_runs_for_several_keys(
    tmp_path: Path,
) -> None:
    file = tmp_path / "drinks.py"
    file.write_text("from raysearch.causal import Variable\nproblem = 3\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")  # as Python does by itself for whatever is no __main__
        for _ in range(2):
            with pytest.raises(JobError):  # once the file has run
                load_problem(f"{file}:problem", {})
    assert [(w.category, w.filename, w.lineno) for w in told] == [
        (DeprecationWarning, str(file), 1)
    ]


def test_names_are_listed_once_more_for_mypy_and_editors_and_bring_nothing_heavy() -> None:
    text = (ROOT / "raysearch" / "__init__.py").read_text()
    typed = text[text.index("if TYPE_CHECKING:") : text.index("if (")]
    names = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(f"if True:{typed.split(':', 1)[1]}pass"))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == set(rs.__all__) - {"__version__"} == set(rs._HOMES)
    light = [
        "CausalModel",
        "Hypothesis",
        "Input",
        "Intervention",
        "Job",
        "Problem",
        "Site",
        "Subspace",
        "Unit",
        "Variable",
        "draw_pairs",
        "fill",
    ]
    code = (
        f"import sys, raysearch as rs\n[getattr(rs, n) for n in {light!r}]\n"
        "print([m for m in ('torch', 'ray', 'transformers', 'mlflow') if m in sys.modules])"
    )
    assert _python(code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", [n for n in rs.__all__ if n not in ("__version__", "Setting", "Value")]
)
def test_every_name_says_what_it_is_in_a_sentence(name: str) -> None:
    """As `rs.Name?` shows it."""
    doc = getattr(rs, name).__doc__ or ""
    first = doc.strip().split(". ")[0]
    assert len(first) > 20
    assert first.split()[0] not in ("Of", "What", "Which", "Who", "Those", "How")


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in USERS_PAGES)]
)
def test_the_pages_tell_users_of_no_other_path(page: str) -> None:
    text = (ROOT / page).read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    problems = r"\.problems\.\w+ import problem$"  # by these paths jobs name them
    assert not re.findall(
        rf"from raysearch(?!{problems})|import raysearch\.|import raysearch$", code, re.MULTILINE
    )
