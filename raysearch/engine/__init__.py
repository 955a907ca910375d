"""One replica does one task: the model, its sites, pairs as tokens, interchange interventions on
them.

Invariants: whatever batches or reuses work equals the oracle, and each replica checks that on its
own model when it starts; nothing here knows what an output means. This file imports nothing of
ours, so that `engine.loading.model_digest` needs no torch.
"""

import os
from pathlib import Path

_PROCESSOR = Path("/proc/cpuinfo")

# MKL reads this at its first product. In strict mode the result of a row does not depend on how
# many rows are multiplied with it, or by how many threads, at the same speed (measured with torch
# 2.13: benchmarks/half_precision.py). MKL has it on Intel's processors. Whoever has set the
# variable keeps it: each replica checks.
if _PROCESSOR.is_file() and "GenuineIntel" in _PROCESSOR.read_text():
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
