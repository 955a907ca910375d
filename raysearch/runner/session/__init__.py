"""Drives a search from its resolved job to its end, resumes it, continues it, and says how it
goes."""
