"""raysearch: where in this network does that variable live? Distributed alignment search with error control."""

__version__ = "0.1.0"
