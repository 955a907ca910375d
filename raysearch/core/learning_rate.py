"""The schedules of a learning rate, those of transformers.optimization."""

import math

from raysearch.core.option_names import ScheduleName


def schedule_factor(schedule: ScheduleName, step: int, steps: int, warm: int) -> float:
    """Returns what a learning rate is multiplied by in `step` (from 0) of `steps`, of which the
    first `warm` raise it from 0."""
    if step < warm:
        return step / max(1, warm)
    done = (step - warm) / max(1, steps - warm)
    match schedule:
        case "linear":
            return 1.0 - done
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
