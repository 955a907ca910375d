"""How a search gets onto a real cluster: the files for it, filled in from a job."""
