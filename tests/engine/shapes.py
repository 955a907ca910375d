"""The type checker of the engine's tests: beartype, which holds each tensor against its shape."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
"""`Self` is let pass: beartype knows it in decorated classes only, and jaxtyping decorates functions."""
