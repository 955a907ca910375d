"""A search whose outputs are mostly decided one by one says so; any other does not."""

from pathlib import Path

import pytest
import torch

import raysearch as rs
from raysearch.engine.loading.load import ModelSource, load
from raysearch.report.run_data import cost_of
from raysearch.runner.session.messages import MANY
from raysearch.storage.open_folder import open_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("scale", "said"), [(1.0, False), (1e-5, True)])
def test_more_than_a_tenth_of_near_ties_is_said_at_the_end_and_fewer_are_not(
    scale: float, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A head that is so much smaller says the same, by logits that are all closer than a batch can
    tell apart."""
    loaded = load(ModelSource(str(ROOT / "jobs" / "planted" / "model")))
    head = loaded.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight * scale, requires_grad=False)
    run = rs.run(
        str(ROOT / "jobs" / "quickstart.yaml"),
        model=(loaded.model, loaded.tokenizer),
        space={"layers": [1], "positions": ["last"]},
        pairs={"test": 16, "holdout": 8},
        store=str(tmp_path),
        pool="local",
    )
    told = " ".join("".join(capsys.readouterr()).split())
    again = cost_of(open_folder(run.place)).near_tie_share
    assert (again > MANY) == said
    assert ("were decided one by one" in told) == said
    if said:
        assert f"{again:.0%} of outputs had two best logits too close to call" in told
