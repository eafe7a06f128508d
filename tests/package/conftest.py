"""The scratch root, one for each module (laying it takes most of a second), and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.package.scratch import ScratchRoot, real_root


@pytest.fixture(scope="module")
def scratch() -> Iterator[ScratchRoot]:
    """A root with OpenWrt's shell, real where there is one."""
    root = ScratchRoot(real_root())
    try:
        yield root
    finally:
        root.close()


def headless_chromium() -> webdriver.Chrome:
    """Start a browser; the caller quits it."""
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    made = webdriver.Chrome(options=options, service=service)
    made.set_script_timeout(30)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium."""
    made = headless_chromium()
    yield made
    made.quit()
