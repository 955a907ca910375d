"""Derives what a run came to without raysearch: check_run.py is the command."""
