"""HTML and SVG that cannot be broken by what is shown in it: plain text is escaped, markup is a type of its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

__all__ = ["Child", "Html", "element", "join"]

_VOID = frozenset({"br", "circle", "line", "link", "meta", "path", "rect", "use"})
"""What has no content: HTML's void elements, and shapes of SVG."""


class Html(str):
    """Finished markup."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | None"


def element(tag: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element. Children that are not `Html` are escaped, None is left out.

    An attribute's ``_`` stands for ``-``, a trailing one is dropped (``class_``); None and False leave it out, True
    gives it no value.
    """
    written = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(key if value is True else f'{key}="{escape(_number(value))}"')
    opening = " ".join(written)
    return Html(f"<{opening}/>" if tag in _VOID else f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Html:
    """Several children one after the other."""
    return Html("".join(_child(child) for child in children))


def _child(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Html) else escape(str(child))


def _number(value: str | float) -> str:
    """A coordinate needs no more than hundredths."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
