"""One Ray for all tests of a file: it takes some seconds to start, and a process stands in one at a
time."""

from collections.abc import Iterator

import pytest
import ray

from raysearch.cluster.ray_session import Session, ray_session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """An embedded Ray of our own, without a dashboard."""
    with ray_session(None, dashboard=False) as here:
        yield here
    assert not ray.is_initialized()
