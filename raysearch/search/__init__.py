"""When to believe it: hypotheses and their space, evidence, the sequential test, proposers, the
search itself."""
