"""Foreign keys, checks and exclusion constraints, as values: what an upgrade makes, and what it takes away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

__all__ = ["Check", "Constraint", "Exclusion", "ForeignKey", "constraint_from_dict"]

_WRITES = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """Values of ``columns`` stand in a row of another table, or one of them is NULL (MATCH SIMPLE)."""

    kind: ClassVar[str] = "foreign key"
    name: str | None
    """None for one that has none (SQLite): its columns tell which one it is."""
    columns: tuple[str, ...]
    target: str
    target_schema: str | None = None
    target_columns: tuple[str, ...]
    ondelete: str | None = None
    """In capitals; None for the servers' own NO ACTION."""
    onupdate: str | None = None
    deferrable: bool = False
    deferred: bool = False
    """INITIALLY DEFERRED."""
    late: bool = False
    """Built at contract only: before, writes of the old release could be refused because of it."""

    @property
    def title(self) -> str:
        """The key in words."""
        return f"the foreign key {self.name or f'on {_listed(self.columns)}'}"

    @property
    def writes(self) -> bool:
        """Whether a change of the other table may change ``columns`` here."""
        return self.onupdate in _WRITES or self.ondelete in _WRITES - {"CASCADE"}

    def demands_no_more_than(self, other: ForeignKey) -> bool:
        """Whether whatever ``other``, on columns of the same values, lets pass is let pass by this one, too."""
        return (
            (self.target_schema, self.target, self.target_columns)
            == (other.target_schema, other.target, other.target_columns)
            and (self.ondelete, self.onupdate) == (other.ondelete, other.onupdate)
            and (self.deferrable, self.deferred) == (other.deferrable, other.deferred)
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :func:`constraint_from_dict`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "columns": list(self.columns),
            "target": self.target,
            "target_schema": self.target_schema,
            "target_columns": list(self.target_columns),
            "ondelete": self.ondelete,
            "onupdate": self.onupdate,
            "deferrable": self.deferrable,
            "deferred": self.deferred,
            "late": self.late,
        }


@dataclass(frozen=True, kw_only=True)
class Check:
    """No row for which ``text`` is false."""

    kind: ClassVar[str] = "check constraint"
    name: str | None
    """None for one that has none (SQLite): its columns and its text tell which one it is."""
    columns: tuple[str, ...]
    """The columns that the condition reads."""
    text: str
    """The condition in the server's own SQL."""
    copies: bool = False
    """Whether writers may be kept waiting while the table is copied, where the server cannot do without."""
    late: bool = False
    """Built at contract only: before, writes of the old release could be refused because of it."""

    @property
    def title(self) -> str:
        """The check in words."""
        return f"the check constraint {self.name or f'({self.text})'}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :func:`constraint_from_dict`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "columns": list(self.columns),
            "text": self.text,
            "copies": self.copies,
            "late": self.late,
        }


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """No two rows for which all ``elements`` compare true (PostgreSQL)."""

    kind: ClassVar[str] = "exclusion constraint"
    name: str
    columns: tuple[str, ...]
    """All that the elements and ``where`` read."""
    using: str = "gist"
    """The index's access method."""
    elements: tuple[tuple[str, str], ...] = ()
    """Each a name of one of ``columns``, or SQL in the server's own words; and the operator that compares it. None of a
    constraint that is to be dropped."""
    where: str = ""
    """A condition in the server's own words, where only the rows for which it is true are compared."""
    blocks: bool = False
    """Whether writers may be kept waiting while its index is built."""
    late: bool = False
    """Built at contract only: before, writes of the old release could be refused because of it."""

    @property
    def title(self) -> str:
        """The constraint in words."""
        return f"the exclusion constraint {self.name}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :func:`constraint_from_dict`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "columns": list(self.columns),
            "using": self.using,
            "elements": [list(element) for element in self.elements],
            "where": self.where,
            "blocks": self.blocks,
            "late": self.late,
        }


Constraint: TypeAlias = "ForeignKey | Check | Exclusion"


def constraint_from_dict(data: Mapping[str, Any]) -> Constraint:
    """The value whose ``as_dict`` gave ``data``. Keys this version does not know are ignored."""
    if data["kind"] == Exclusion.kind:
        return Exclusion(
            name=data["name"],
            columns=tuple(data["columns"]),
            using=data["using"],
            elements=tuple((one, operator) for one, operator in data["elements"]),
            where=data["where"],
            blocks=data["blocks"],
            late=data["late"],
        )
    if data["kind"] == Check.kind:
        return Check(
            name=data["name"],
            columns=tuple(data["columns"]),
            text=data["text"],
            copies=data["copies"],
            late=data["late"],
        )
    return ForeignKey(
        name=data["name"],
        columns=tuple(data["columns"]),
        target=data["target"],
        target_schema=data["target_schema"],
        target_columns=tuple(data["target_columns"]),
        ondelete=data["ondelete"],
        onupdate=data["onupdate"],
        deferrable=data["deferrable"],
        deferred=data["deferred"],
        late=data["late"],
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
