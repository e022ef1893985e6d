"""The page's colours, light and dark. Their contrast is kept by a test."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PALETTE", "stylesheet"]

PALETTE: Mapping[str, tuple[str, str]] = {
    "page": ("#f5f4f0", "#14161a"),
    "card": ("#ffffff", "#1c1f25"),
    "inset": ("#f3f2ed", "#252931"),
    "text": ("#1b1d22", "#eceae4"),
    "quiet": ("#5c6068", "#a3a8b2"),
    "line": ("#dedbd2", "#343943"),
    "old": ("#a34700", "#f5a34b"),
    "new": ("#1358b8", "#7db4ff"),
    "fault": ("#8b1f86", "#e59be0"),
    "good": ("#15693a", "#6bd095"),
    "good-inset": ("#e4f3e9", "#17301f"),
    "bad": ("#b3201a", "#ff938a"),
    "bad-inset": ("#fceae8", "#3a1c1a"),
    "warn": ("#7d5600", "#e5bf5a"),
    "warn-inset": ("#fbf1d9", "#332a12"),
    "expand": ("#2f7f78", "#4fa89f"),
    "migrate": ("#6a5fb0", "#9489e0"),
    "verify": ("#8a7a1f", "#c2b04a"),
    "contract": ("#a8486b", "#dc7d9f"),
    "rollback": ("#b3201a", "#ff938a"),
    "idle": ("#c9c6bc", "#4a505b"),
}
"""Name to its colour on a light and on a dark page. Text is written in ``text``, ``quiet``, ``old``, ``new``,
``fault`` on ``page``, ``card`` and ``inset``; ``good``, ``bad`` and ``warn`` also on their own insets. The names of
phases colour shapes only.
"""


def stylesheet() -> str:
    """The palette as custom properties of CSS; a page is printed as it looks in the light."""

    def properties(which: int) -> str:
        return " ".join(f"--{name}: {colours[which]};" for name, colours in PALETTE.items())

    return (
        f":root {{ color-scheme: light dark; {properties(0)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {properties(1)} }} }}\n"
    )
