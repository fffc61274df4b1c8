"""A real headless Chromium that does what a test says: the DevTools protocol over a pipe, without another library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.records import Json

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = (
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
)
_HANDED = """
import fcntl, os, sys
high = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads commands from its descriptor 3 and answers on 4."""


class Browser:
    """One page. `problems`: what the console said that is no plain log, exceptions, and what the policy refused."""

    def __init__(self, profile: Path, *, dark: bool = False) -> None:
        assert CHROMIUM is not None, "tests skip where there is none"
        theirs, self._out = os.pipe()
        self._in, ours = os.pipe()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._waiting = b""
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *_QUIET]
        command += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        handed = [sys.executable, "-c", _HANDED, str(theirs), str(ours), *command]
        self._process = subprocess.Popen(
            handed, pass_fds=(theirs, ours), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(ours)
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def ask(self, method: str, **parameters: Any) -> Json:
        """What the page answers to a command of the protocol."""
        return self._ask(method, session=self._session, **parameters)

    def open(self, address: str, width: int = 1440, height: int = 900) -> None:
        """Go there, and wait until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Page.navigate", url=address)
        self.until(
            f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address.split('#')[0])})"
        )

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, seconds: float = 20.0) -> None:
        """Wait until the expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """The page as a PNG."""
        taken = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _ask(self, method: str, session: str = "", **parameters: Any) -> Json:
        self._number += 1
        asked = {
            "id": self._number,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") == self._number:
                assert "error" not in said, f"{method}: {said['error']}"
                return dict(said["result"])
            self._hear(said)

    def _hear(self, said: Json) -> None:
        told = said.get("params", {})
        if said["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif said["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.problems.append(str(told["args"]))
        elif said["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(told["entry"]["text"])
        elif said["method"] == "Page.javascriptDialogOpening":
            self.problems.append(f"a dialog: {told['message']}")
        elif said["method"] == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def _read(self) -> Json:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._in], [], [], 60)
            assert ready, "the browser does not answer"
            read = os.read(self._in, 1 << 16)
            assert read, "the browser has ended"
            self._waiting += read
        line, _, self._waiting = self._waiting.partition(b"\0")
        return dict(json.loads(line))


def shots(addresses: Sequence[tuple[str, str]], folder: Path, profile: Path) -> None:
    """Pictures of pages (name, address) at the widths of a telephone and of a desk, light and dark."""
    for dark in (False, True):
        with Browser(profile / str(dark), dark=dark) as browser:
            for name, address in addresses:
                for width in (390, 1440):
                    browser.open(address, width=width)
                    browser.picture(folder / f"{name}-{width}{'-dark' * dark}.png")
