"""A job to its run: what it asks, the pool, the search driven to its end or left to be gone on
with. Who asked, it does not know.

Invariants: nothing here prints: what is to be said is said to whoever follows the run (`Frontend`).
"""
