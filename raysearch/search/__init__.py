"""The search as a state machine: screening, trials, verdicts, fits and holdout estimates."""
