"""docs/how-to/your-own-model.md, done as it says: each network of the page is planned with the keys
that stand beside it."""

import re
from typing import Any

import pytest
import torch
import yaml

import raysearch as rs
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


def test_a_saved_intervention_is_applied_as_the_page_does_and_as_hooks_do_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "how-to" / "your-own-model.md").read_text()
    code = page.partition("## Look into it")[2].split("```python\n")[1].partition("```")[0]
    (shell.folder / "my_stages.py").write_text(next(c for _, c in BLOCKS if "my_stages" in c))
    unit = rs.Unit(rs.Site(None, "embed.output", "last"), rs.Subspace(coordinates=(0, 2, 3)))
    rs.save_intervention(rs.Intervention((unit,)), shell.folder / "found")
    monkeypatch.chdir(shell.folder)
    names: dict[str, Any] = {}
    with torch.random.fork_rng([]):
        exec(code, names)
    net, inputs = names["net"].given.module, torch.eye(8) * 9
    net.second.bias[0] += (net(inputs)[:, 1] - net(inputs)[:, 0]).mean()  # so that both are said
    classes = net(inputs).argmax(1).tolist()
    base, source = inputs[classes.index(0)], inputs[classes.index(1)]
    theirs = net.embed(source)

    def put(_module: object, _given: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, [0, 2, 3]] = theirs[[0, 2, 3]]
        return out

    handle = net.embed.register_forward_hook(put)
    logits = net(base[None])[0]
    handle.remove()
    swap = names["net"].swap(base, source, names["saved"])
    assert swap.after == pytest.approx(float(logits[1] - logits[0]), abs=1e-6)
    assert swap.token_id == int(logits.argmax())
    assert capsys.readouterr().out.count("embed.output, token 0: ") == 2


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
