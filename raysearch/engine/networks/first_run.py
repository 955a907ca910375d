"""Runs a model once without any intervention, so that one that cannot run is refused in one line.

Invariants: a failure is said before any work is done and journalled.
"""

import torch

from raysearch.core.events import ModelInput
from raysearch.engine.networks.network import Network
from raysearch.errors import ModelError, is_out_of_memory
from raysearch.visible_text import one_line


@torch.inference_mode()
def check_runs(network: Network, givens: dict[str, ModelInput]) -> None:
    """Runs the model on inputs, each with the words that name it in an error.

    Raises: ModelError, one line, for whatever the model's own code raises.
    """
    for what, given in givens.items():
        try:
            network.plain(given)
        except ModelError:
            raise
        except (Exception, SystemExit) as e:  # any error of the model
            raise does_not_run(network.name, what, e) from e


def does_not_run(name: str, what: str, error: BaseException) -> ModelError:
    """Returns the error of a model that does not run on the input that `what` names."""
    text = f"{name} does not run, without any intervention, on {what} ({type(error).__name__}: "
    way_out = (
        "memory is full: end what else uses it, or take a smaller model or dtype"
        if is_out_of_memory(error)
        else "its configuration or weights are broken, or something that it needs is not installed"
    )
    return ModelError(f"{text}{one_line(error)}); {way_out}")
