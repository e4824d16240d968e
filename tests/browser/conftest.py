# SPDX-License-Identifier: MIT
"""A real browser: headless Chromium, with a profile of its own, and its log of what it fetched and complained of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common import utils

PHONE, DESK = 360, 1280  # widths, CSS pixels
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it would not start as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",  # a port would be looked for on localhost, by name
)


class Local(Service):
    """The driver's own server, asked by number: a machine need not know the name localhost."""

    @property
    def service_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def is_connectable(self) -> bool:
        """Whether it is up."""
        return utils.is_url_connectable(self.port, "127.0.0.1")


@dataclass(frozen=True)
class Browser:
    """Chromium, and what a test asks of it."""

    driver: webdriver.Chrome

    def open(
        self, path: Path, *, width: int = DESK, scheme: str = "light", scripts: bool = True, part: str = ""
    ) -> None:
        """Open a file at a width and in a colour scheme; `part` is the fragment."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        media = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.command("Emulation.setEmulatedMedia", features=media)
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.driver.get("about:blank")  # a page that differs by its fragment only would not be loaded anew
        self.fetched()
        self.driver.get(path.as_uri() + part)

    def command(self, name: str, **parameters: Any) -> Any:
        """Give a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def ask(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def fetched(self) -> list[str]:
        """Return the addresses of what was asked for since the last time, the pages themselves among it."""
        messages = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what its console says since the last time."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        driver: Any = self.driver  # selenium leaves this method of its own untyped
        return list(driver.get_log(kind))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser, one for all tests."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Named, or selenium would look for a driver to download.
    driver = webdriver.Chrome(options=options, service=Local("/usr/bin/chromedriver"))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
