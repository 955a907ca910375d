"""The command line: the top room, which may import from all others."""
