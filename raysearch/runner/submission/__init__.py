"""Sends a run to a Ray cluster as a job of it, and looks after such jobs."""
