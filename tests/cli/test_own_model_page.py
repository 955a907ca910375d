"""docs/how-to/your-own-model.md, done as it says: each network of the page is planned with the keys
that stand beside it."""

import re
from typing import Any

import pytest
import torch
import yaml

from tests.cli.conftest import ROOT, Shell

SECTION = (
    (ROOT / "docs" / "how-to" / "your-own-model.md")
    .read_text()
    .partition("## Any torch module")[2]
    .partition("\n## ")[0]
)
BLOCKS = re.findall(r"```yaml\n(.*?)```\s*```python\n(.*?)```", SECTION, re.S)
PROBLEM = """
from raysearch.causal import CausalModel, Input, Problem, Variable

model = CausalModel(
    variables=(Variable("a", (0, 1)), Variable("b", (0, 1)), Variable("c", tuple(range(64))), Variable("same", (0, 1))),
    parents={"same": ("a", "b")},
    mechanisms={"same": lambda a, b: int(a == b)},
    output="same",
)
draw = lambda rng: {"a": rng.randrange(2), "b": rng.randrange(2), "c": rng.randrange(64)}
stimulus = lambda v: [float(v["a"]), float(v["b"]), *(float(v["c"] >> i & 1) for i in range(6))]
problem = Problem("same", model, lambda rng: (draw(rng), draw(rng)), lambda v: Input(stimulus=stimulus(v), values=v), str, ())
"""


def test_the_page_has_a_network_with_blocks_and_one_without() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize(("keys", "code"), BLOCKS)
def test_a_network_of_the_page_is_planned(keys: str, code: str, shell: Shell) -> None:
    name = re.search(r"# (\w+\.py), beside the job", code)
    assert name is not None
    (shell.folder / name[1]).write_text(code)
    (shell.folder / "problem.py").write_text(PROBLEM)
    if "my_net.pt" in code:
        names: dict[str, Any] = {}
        exec(code, names)
        torch.save(names["Net"]().state_dict(), shell.folder / "my_net.pt")
    job = {
        "name": "page",
        "problem": {"use": "problem.py:problem"},
        "pairs": {"test": 40, "holdout": 0},
        **yaml.safe_load(keys),
    }
    job["space"]["variables"] = ["a", "b"]
    (shell.folder / "job.yaml").write_text(yaml.safe_dump(job))
    planned = shell.json("plan", "job.yaml", "-o", "json")
    components = job["space"]["components"]
    assert planned["components"] == [
        c if c in ("residual", "second.input") else f"{c}.output" for c in components
    ]
    assert planned["layers"] == (2 if components == ["residual"] else 0)
