"""One Ray for all tests of this folder: it takes some seconds to start."""

from collections.abc import Iterator

import pytest
import ray

from raysearch.cluster.session import Session, ray_session


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    """An embedded Ray of our own, without a dashboard."""
    with ray_session(None, dashboard=False) as here:
        yield here
    assert not ray.is_initialized()
