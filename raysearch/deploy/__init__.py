"""Renders the files that run a job on a cluster."""
