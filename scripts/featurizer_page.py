"""Prints docs/reference/featurizers.md: the featurizers of raysearch, from their one list.

python -m scripts.featurizer_page > docs/reference/featurizers.md
"""

from raysearch.core.featurizers import FEATURIZERS

MADE = {"given": "given", "closed_form": "computed on fit pairs", "trained": "trained on fit pairs"}
HEAD = """# Featurizers

A featurizer maps an activation to features and back. A job names one in `space.subspaces`; a list
of numbers says how many features there are, one subspace for each number. Installed packages add
others ([how](../how-to/extend-by-a-package.md)).

Made by `python -m scripts.featurizer_page` from `raysearch/core/featurizers.py`: do not edit.
x is the base's vector, y the source's, of all tokens of the unit.

| in a job | made | what it is | what is interchanged |
|---|---|---|---|
| `full`, `{coordinates: [0, 16]}` | given | The vector as it is, or some of its coordinates. | x ← y, at these coordinates. |
"""


def page() -> str:
    """Returns the page in Markdown."""
    rows = [
        (f"`{kind.in_a_job}`", MADE[kind.fitted], kind.summary, kind.formula)
        for kind in FEATURIZERS[1:]
    ]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    print(page(), end="")
