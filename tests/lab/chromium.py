"""A headless Chromium, driven by its DevTools protocol: pages, keys, screenshots, and what the page complains of.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.lab.hosts import PATIENCE, until

#: --no-sandbox: the tests run as root. The others leave out what asks the network or writes elsewhere.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-port=0"),
)

#: Where `make acceptance` installs the packages of npm.
AXE = Path(sys.prefix, "peers", "node_modules", "axe-core", "axe.min.js")

Values = dict[str, Any]


class Page:
    """A tab."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._number = 0
        #: What came that is no answer: console messages, errors, requests that failed.
        self.events: list[Values] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **parameters: Any) -> Values:
        """Send a command; return its result."""
        self._number += 1
        self._channel.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._channel.recv(timeout=PATIENCE))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: Values = answer["result"]
                return result
            self.events.append(answer)

    def js(self, expression: str) -> Any:
        """The value of an expression, of which a promise is awaited."""
        done = self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, (expression, done["exceptionDetails"])
        return done["result"].get("value")

    def open(self, address: str) -> None:
        """Go there."""
        self.do("Page.navigate", url=address)

    def until(self, expression: str, patience: float = PATIENCE) -> Any:
        """Wait for an expression to be true."""
        return until(lambda: self.js(expression), lambda: f"{expression}; the page has {self.text()!r:.600}", patience)

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.js("document.body?.innerText"))

    def key(self, key: str, text: str = "") -> None:
        """Press a key and let it go; `text` is what it types."""
        codes = {
            "Enter": 13,
            "Escape": 27,
            "Tab": 9,
            "Delete": 46,
            "ArrowDown": 40,
            "ArrowUp": 38,
            "End": 35,
            "Home": 36,
        }
        values: Values = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "code": key}
        if text:
            values["text"] = text
        self.do("Input.dispatchKeyEvent", type="keyDown", **values)
        self.do("Input.dispatchKeyEvent", type="keyUp", **values)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        for letter in text:
            self.key(letter, letter)

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0, still: bool = False) -> None:
        """Make the window so large, in CSS pixels, and say what its user prefers."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        if still:
            features.append({"name": "prefers-reduced-motion", "value": "reduce"})
        self.do("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        found = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the console, the security policy and scripts had to say so far."""
        self.js("0")
        found = []
        for event in self.events:
            kind, values = event["method"], event["params"]
            if kind == "Runtime.consoleAPICalled":
                found.append(str([each.get("value", each.get("description")) for each in values["args"]]))
            elif kind == "Runtime.exceptionThrown":
                details = values["exceptionDetails"]
                found.append(str(details.get("exception", {}).get("description", details["text"])))
            elif kind == "Log.entryAdded":
                found.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
            elif kind == "Audits.issueAdded":
                found.append(json.dumps(values["issue"]))
        return found


@contextlib.contextmanager
def chromium(folder: Path, *flags: str) -> Iterator[Page]:
    """A tab of a new browser, which keeps its files in `folder`. Skips the test if there is no Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    log = (folder / "log").open("wb")
    argv = [program, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    browser = subprocess.Popen(argv, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"})
    try:
        named = folder / "profile" / "DevToolsActivePort"
        until(lambda: named.exists() and "\n" in named.read_text(), "Chromium's start", 2 * PATIENCE)
        port = named.read_text().split("\n")[0]
        with connect(
            f"ws://127.0.0.1:{port}{named.read_text().splitlines()[1]}", max_size=None, proxy=None, ping_interval=None
        ) as channel:
            channel.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
            targets = json.loads(channel.recv(timeout=PATIENCE))["result"]["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        address = f"ws://127.0.0.1:{port}/devtools/page/{target}"
        with connect(address, max_size=None, proxy=None, ping_interval=None) as channel:
            yield Page(channel)
    finally:
        browser.terminate()
        deadline = time.monotonic() + PATIENCE
        while browser.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                browser.wait(0.5)
        browser.kill()
        browser.wait()
        log.close()


def violations(page: Page) -> list[str]:
    """What axe-core finds. It runs in a world of its own, since the page lets no script of others in."""
    frame = page.do("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = page.do("Page.createIsolatedWorld", frameId=frame, worldName="axe")["executionContextId"]
    script = (
        f"{AXE.read_text()}; axe.run({{resultTypes: ['violations']}}).then(found => JSON.stringify(found.violations))"
    )
    done = page.do("Runtime.evaluate", expression=script, contextId=world, awaitPromise=True, returnByValue=True)
    assert "exceptionDetails" not in done, done
    found = json.loads(done["result"]["value"])
    return [f"{each['id']}: {node['html']} {node['failureSummary']}" for each in found for node in each["nodes"]]
