"""Takes the picture of a report that the documentation shows.

    python -m tests.rehearsal.picture report.html docs/rehearse.png

It is the upper part of the page that ``contraflow rehearse --report report.html`` has written, on a screen.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from tests.rehearsal.browser import Browser

WIDTH = 1100


def take(page: str) -> bytes:
    """The page from its top to the end of the drawing, as a PNG."""
    browser = Browser()
    try:
        with browser.page(page, width=WIDTH) as shown:
            end: float = shown.evaluate("document.querySelector('.timeline.wide').getBoundingClientRect().bottom")
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": end - 50, "scale": 1}
            shot = shown.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    finally:
        browser.close()
    return base64.b64decode(shot["data"])


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(take(source.read_text(encoding="utf-8")))
