"""Makes of a job one that can be searched: its pairs, positions, space and proposer, checked."""
