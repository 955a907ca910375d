"""A real browser, headless, with a profile of its own; tests that need it are skipped, and say so,
where there is none."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver

_QUIET = "headless no-sandbox disable-gpu disable-background-networking no-first-run disable-component-update disable-sync"


@contextmanager
def browser(width: int, height: int) -> Iterator[Any]:
    """Chromium, driven; its console and its requests are kept. chromedriver makes a fresh profile
    each time."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(
            "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*_QUIET.split(), "disable-dev-shm-usage", f"window-size={width},{height}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def requested(opened: Any) -> set[str]:
    """The URLs that the browser has asked for since it was last asked, data: aside, which is no
    request of a network."""
    told = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = (
        t["params"]["request"]["url"] for t in told if t["method"] == "Network.requestWillBeSent"
    )
    return {url for url in urls if not url.startswith("data:")}
