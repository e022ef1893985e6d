"""A real browser without a screen, for tests of pages: Debian's Chromium, in a private prefix like the servers.

It is spoken to in its DevTools protocol over a pipe, so that no port and no package is needed for it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from contraflow.rehearsal.servers.packages import debian_prefix
from contraflow.rehearsal.servers.process import Home

__all__ = ["Browser", "Page"]

_PROGRAM = "usr/lib/chromium/chromium-headless-shell"
_LAUNCHER = """
import os, sys
commands, answers = (os.dup2(int(fd), 100 + n) for n, fd in enumerate(sys.argv[1:3]))
os.dup2(commands, 3), os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands at file descriptor 3 and answers at 4; dash cannot name any above 9."""

_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{prefix}/usr/share/fonts</dir>
  <cachedir>{cache}</cachedir>
  <alias binding="strong"><family>system-ui</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias binding="strong"><family>sans-serif</family><prefer><family>Liberation Sans</family></prefer></alias>
</fontconfig>
"""


class Browser:
    """One process of Chromium. Its fonts are the prefix' own, so that a page is measured alike everywhere."""

    def __init__(self) -> None:
        prefix = debian_prefix(
            "chromium",
            suite="bookworm",
            packages=["chromium-headless-shell", "fonts-dejavu-core", "fonts-liberation2"],
            programs=[_PROGRAM],
            progress=lambda _line: None,
        )
        self._home = Home("chromium")
        folder = self._home.path
        (folder / "fonts.conf").write_text(_FONTS.format(prefix=prefix, cache=folder / "fonts"), encoding="utf-8")
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        command = [
            str(prefix / _PROGRAM),
            # The pages are this project's own; the sandbox wants more of the system than a test may ask for.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            "--remote-debugging-pipe",
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, str(commands), str(answers), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(commands, answers),
                start_new_session=True,
                env={
                    **os.environ,
                    "FONTCONFIG_FILE": str(folder / "fonts.conf"),
                    # libpulse finds its other half by a path of its own, which is the system's.
                    "LD_LIBRARY_PATH": ":".join(map(str, prefix.glob("usr/lib/*-linux-gnu*/pulseaudio"))),
                },
            )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End the browser."""
        os.close(self._commands)  # which tells it to go
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._home.close()

    @contextlib.contextmanager
    def page(
        self, html: str, *, width: int, scheme: Literal["light", "dark"] = "light", media: str = "screen"
    ) -> Iterator[Page]:
        """``html``, loaded and laid out ``width`` CSS pixels wide."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            page.call(
                "Emulation.setEmulatedMedia",
                media=media,
                features=[{"name": "prefers-color-scheme", "value": scheme}],
            )
            with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
                file.write(html)
                file.flush()
                page.call("Page.navigate", url=Path(file.name).as_uri())
                self.wait_for("Page.loadEventFired", session)
                yield page
        finally:
            self.call("Target.closeTarget", targetId=target)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its result.

        :raises RuntimeError: if the browser refuses it, or is gone.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def wait_for(self, method: str, session: str) -> None:
        """Return when the event ``method`` of ``session`` was seen."""
        while not any(event["method"] == method for event in self.events(session)):
            self._events.append(self._read())

    def events(self, session: str) -> list[dict[str, Any]]:
        """What ``session`` has told so far."""
        return [event for event in self._events if event.get("sessionId") == session]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._answers, 1 << 16)
            if not more:
                log = (self._home.path / "log").read_text(errors="replace")
                raise RuntimeError(f"chromium is gone:\n{log[-2000:]}")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read


class Page:
    """One loaded page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON has it."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """What the browser's console shows: errors, warnings, violations."""
        told = []
        for event in self._browser.events(self._session):
            if event["method"] == "Log.entryAdded":
                told.append(event["params"]["entry"]["text"])
            elif event["method"] in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"}:
                told.append(json.dumps(event["params"]))
        return told

    def requests(self) -> list[str]:
        """The addresses that were asked for, the page itself left out."""
        asked = [
            event["params"]["request"]["url"]
            for event in self._browser.events(self._session)
            if event["method"] == "Network.requestWillBeSent"
        ]
        return asked[1:]

    def hover(self, selector: str, number: int = 0) -> None:
        """Put the pointer over the middle of element ``number`` of those that ``selector`` finds and that are shown."""
        x, y = self.evaluate(
            f"(() => {{ const found = [...document.querySelectorAll({json.dumps(selector)})]"
            f".filter(e => e.checkVisibility()); const e = found[{number}];"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        made = self.call(
            "Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True, printBackground=True
        )
        return base64.b64decode(made["data"])
