"""The version of raysearch: of the package, and of what it writes down."""

__version__ = "0.1.0"
