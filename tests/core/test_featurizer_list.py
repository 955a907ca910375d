"""The one list of featurizers: the classes that it names are there, and the page is made of it."""

from pathlib import Path

import pytest

from raysearch.core.featurizers import FEATURIZERS, FeaturizerKind
from raysearch.engine.featurizers.construction import implementation
from scripts.featurizer_page import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "featurizers.md"


def test_the_page_is_what_the_script_prints() -> None:
    made = "run: python -m scripts.featurizer_page > docs/reference/featurizers.md"
    assert PAGE.read_text() == page(), made


@pytest.mark.parametrize("kind", FEATURIZERS, ids=lambda kind: kind.name)
def test_each_names_a_class_that_goes_by_its_name(kind: FeaturizerKind) -> None:
    found = implementation(kind.name)
    assert found.name == kind.name
    assert found.__module__ == kind.implementation.partition(":")[0], "no older path of it"
    assert kind.summary
    assert kind.formula or kind.name == "identity"
