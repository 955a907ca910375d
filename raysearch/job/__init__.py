"""Job: one search, as a file asks for it; frozen and validated. The job says what, flags say only
where.

Invariants: unknown keys are errors that name the nearest right one; paths are absolute once loaded,
relative ones being taken from the job file's folder.
"""

from raysearch.job.job import Job
from raysearch.job.space_keys import LayerRange, SpaceKeys
from raysearch.job.unit_keys import UnitKeys

__all__ = ["Job", "LayerRange", "SpaceKeys", "UnitKeys"]
