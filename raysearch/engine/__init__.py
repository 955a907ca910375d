"""One replica does one task: the model, its sites, pairs as tokens, interchange interventions on
them.

Invariants: whatever batches or reuses work equals the oracle, and each replica checks that on its
own model when it starts; nothing here knows what an output means. This file imports nothing, so
that `engine.digest` needs no torch.
"""
