"""Statistics: evidence, tests that are valid at every look, and their power."""
