"""Turns a model that a user has loaded into one that can be searched: a rs.Model, a model of
transformers with its tokenizer, or a module."""

from typing import Any

from raysearch.engine.loading.given_model import GivenModel
from raysearch.notebook.model import Model
from raysearch.notebook.tensor_model import TensorModel


def given_model(model: Any) -> GivenModel:
    """Raises: ModelError for what is no model, or only a part of one."""
    if isinstance(model, Model | TensorModel):
        return model.given
    if isinstance(model, tuple | list) and len(model) == 2:
        return GivenModel.of(*model)
    if (
        hasattr(model, "model")
        and hasattr(model, "tokenizer")
        and callable(model)
        and hasattr(model, "task")
    ):
        return GivenModel.of(model.model, model.tokenizer)  # a pipeline of transformers
    return GivenModel.of(model)
