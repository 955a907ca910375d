"""Python's interface to raysearch: a model to look into, swaps and scans of one pair, and how they
are shown."""
