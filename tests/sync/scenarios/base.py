"""What a scenario is, and what their tables of cases have in common."""

# ruff: noqa: E501  from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from contraflow.operations.base import Operation
from tests.sync.oracle import Cell, Group, Model

__all__: list[str] = [
    "BOTH",
    "CASES",
    "KEY",
    "NAMES",
    "NOTE",
    "PARTS",
    "SCENARIOS",
    "SERVERS",
    "SPACED",
    "TEXTS",
    "Scenario",
    "by_name",
    "first_",
    "last_",
    "lower_",
    "model",
    "or_",
    "scenario",
    "time6",
    "trim_",
    "upper_",
]


KEY = "id"
NOTE = "note"
SERVERS = ("sqlite", "postgresql", "mysql", "mariadb")
Columns = Callable[[str], list[sa.Column[Any]]]

TEXTS: list[Any] = [
    "", " ", "a", "A", "b", "a ", " a", " A b", "Ann Lee", "ann lee", "x y z", "it's", "50%", "%s", "a\\b", "é", "e\u0301", "𝒳 🙂", ":x",
]  # fmt: skip
"""Values that differ only in case, spaces or composition, and characters that break quoting."""
# A lossy lens is told from a wrong one by values that have one image: small pools of such values find more.
CASES: list[Any] = ["a", "A", "b", "B", "É"]
SPACED: list[Any] = ["a", " a", "a ", "b", ""]
BOTH: list[Any] = ["a", "A", " a", " A", "b"]
NAMES: list[Any] = ["a b", "A b", "a", "a ", " a", "b a", "", "a b c"]
PARTS: list[Any] = ["a", "A", "b", "", "a b", " "]


def time6() -> sa.types.TypeEngine[Any]:
    """A time with microseconds everywhere."""
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One table: its old shape, what is declared, and what that means."""

    name: str
    columns: Columns
    changes: Callable[[], Sequence[Sequence[Operation]]]
    model: Callable[[str], Model]
    pools: Mapping[str, Sequence[Any]]
    """Values to write, by column; NULL is added where the column's own schema allows it."""
    products: tuple[str, ...] = SERVERS
    kinds: tuple[str, ...] | None = None
    """Kinds of server, where a product is not enough."""
    table: str = "things"
    rowid: bool = True
    keyed: bool = True
    composite: bool = False
    setup: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def more_key(self) -> list[sa.Column[Any]]:
        """Further columns of the primary key."""
        return [sa.Column("Tenant", sa.String(10), primary_key=True)] if self.composite else []

    def more_key_values(self) -> dict[str, Any]:
        """What rows hold there."""
        return {"Tenant": "t'1"} if self.composite else {}

    def runs_on(self, kind: str, product: str) -> bool:
        """Whether the scenario is meant for a server."""
        return product in self.products and (self.kinds is None or kind in self.kinds)


SCENARIOS: list[Scenario] = []


def scenario(name: str, **arguments: Any) -> None:
    """Add a scenario."""
    model = arguments.pop("model")
    if not callable(model):
        fixed = model
        arguments["model"] = lambda _product: fixed
    else:
        arguments["model"] = model
    columns = arguments.pop("columns")
    arguments["columns"] = columns if _takes_product(columns) else lambda _product: columns()
    changes = arguments.pop("changes")
    SCENARIOS.append(Scenario(name=name, changes=lambda: _nested(changes()), **arguments))


def _takes_product(function: Callable[..., Any]) -> bool:
    return function.__code__.co_varnames[:1] == ("product",)


def _nested(operations: Sequence[Any]) -> list[list[Operation]]:
    return [list(part) for part in operations] if isinstance(operations[0], (list, tuple)) else [list(operations)]


def by_name(name: str) -> Scenario:
    """The scenario of that name."""
    return next(found for found in SCENARIOS if found.name == name)


def model(*groups: Group, shared: Sequence[str] = ()) -> Model:
    """A model with these groups, and the column no lens touches; ``shared`` columns are known to both releases."""
    return Model(groups=groups, others=(Cell(name=NOTE, default="-"),), shared=frozenset(shared))


# --- text by hand -------------------------------------------------------------------------------------------------

_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"


def lower_(text: str | None) -> str | None:
    """The letters A-Z in lower case."""
    return None if text is None else "".join(_LOWER[_UPPER.index(c)] if c in _UPPER else c for c in text)


def upper_(text: str | None) -> str | None:
    """The letters a-z in upper case."""
    return None if text is None else "".join(_UPPER[_LOWER.index(c)] if c in _LOWER else c for c in text)


def trim_(text: str | None) -> str | None:
    """Without spaces at both ends."""
    if text is None:
        return None
    while text.startswith(" "):
        text = text[1:]
    while text.endswith(" "):
        text = text[:-1]
    return text


def first_(text: str | None) -> str | None:
    """Up to the first space."""
    if text is None:
        return None
    place = text.find(" ")
    return text if place < 0 else text[:place]


def last_(text: str | None) -> str | None:
    """Behind the first space."""
    if text is None:
        return None
    place = text.find(" ")
    return "" if place < 0 else text[place + 1 :]


def or_(value: Any, other: Any) -> Any:
    """``value``, or ``other`` if it is NULL."""
    return other if value is None else value
