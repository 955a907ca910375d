"""Reads a run that is in a store: its job, its pairs, its proposals, one of its hypotheses."""
