"""Says what a job would do before it runs: hypotheses, chances, memory, time, pairs needed."""
