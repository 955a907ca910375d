"""Writes what a run found in formats that other programs read."""
