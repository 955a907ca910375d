"""While a model is loaded, a hub that does not answer is said once, and the hub's own logger is left
as it was."""

import logging

import pytest

from raysearch.core.model_source import ModelSource
from raysearch.engine.loading import load as loading

REQUESTS = logging.getLogger("huggingface_hub.utils._http")


def _retries() -> None:
    for _ in range(3):
        REQUESTS.warning("'Timeout' thrown while requesting HEAD https://hub/x")
        REQUESTS.warning("Retrying in 1s [Retry 1/5].")
    REQUESTS.warning("a token is missing")


@pytest.mark.parametrize("name", ["load", "without_weights"])
def test_a_hub_without_an_answer_is_said_once_for_each_loading(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: ModelSource) -> None:
        _retries()
        raise loading.ModelError("no such model")

    monkeypatch.setattr(loading, "_found", fails)
    for _ in range(2):
        caplog.clear()
        with pytest.raises(loading.ModelError, match="no such model"):
            getattr(loading, name)(ModelSource("owner/name"))
        assert caplog.messages == [
            "the model hub does not answer ('Timeout'); it is asked again for a minute",
            "a token is missing",
        ]
    caplog.clear()
    _retries()
    assert len(caplog.messages) == 7
