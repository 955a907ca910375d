"""Public helpers for tests of proposers, ledgers and clusters."""
