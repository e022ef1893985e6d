"""What an upgrade leaves in a database, as plain data for the journal: contract and rollback are planned from it alone.

A later version reads what an earlier one wrote: ``from_dict`` ignores keys it does not know, and new keys have
defaults. The steps (:mod:`contraflow.steps`) speak of the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from contraflow.constraints import Constraint, constraint_from_dict

__all__ = [
    "Comment",
    "DefaultChange",
    "Index",
    "Installed",
    "InstalledCopy",
    "InstalledPair",
    "KeyChange",
    "Labels",
    "Mend",
    "Numbered",
    "Widening",
]


@dataclass(frozen=True, kw_only=True)
class Index:
    """An index, or a unique constraint: a server has one of its own kind for it, or keeps it as a unique index."""

    name: str | None
    """None for a constraint that has none (SQLite): its columns tell which one it is."""
    columns: tuple[str, ...]
    unique: bool = False
    constraint: bool = False
    """It is to be (or was found as) a constraint, where the server tells constraints from indexes."""
    late: bool = False
    """Built at contract only: before, writes of the old release could be refused because of it."""
    primary: bool = False
    """It is (or becomes) the primary key. Where the server cannot build that beforehand, nothing is built."""
    parts: tuple[str, ...] = ()
    """Its key in order, where that is not just ``columns``: names of columns, and SQL in the server's own words. Then
    ``columns`` are all that these and ``where`` read."""
    where: str = ""
    """A condition in the server's own words, where only the rows for which it is true are in the index."""
    using: str = ""
    """The access method, where it is not the server's usual one."""
    storage: tuple[tuple[str, str], ...] = ()
    """Storage parameters, and their values."""

    @property
    def key(self) -> tuple[str, ...]:
        """Its key in order: names of columns, and SQL."""
        return self.parts or self.columns

    @property
    def plain(self) -> tuple[str, ...]:
        """The columns in its key."""
        return tuple(part for part in self.key if part in self.columns)

    @property
    def is_plain(self) -> bool:
        """Whether all rows are in it, by columns alone."""
        return not self.where and self.plain == self.key

    @property
    def title(self) -> str:
        """The index in words."""
        kind = "primary key" if self.primary else "unique constraint"
        return self.name or f"the {kind} on {', '.join(self.columns)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {
            "name": self.name,
            "columns": list(self.columns),
            "unique": self.unique,
            "constraint": self.constraint,
            "late": self.late,
            "primary": self.primary,
            "parts": list(self.parts),
            "where": self.where,
            "using": self.using,
            "storage": [list(pair) for pair in self.storage],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Index:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(
            name=data["name"],
            columns=tuple(data["columns"]),
            unique=data["unique"],
            constraint=data["constraint"],
            late=data["late"],
            primary=data.get("primary", False),
            parts=tuple(data.get("parts", ())),
            where=data.get("where", ""),
            using=data.get("using", ""),
            storage=tuple((name, value) for name, value in data.get("storage", ())),
        )


@dataclass(frozen=True, kw_only=True)
class KeyChange:
    """Another primary key of a table, which contract makes; or the first one, or none any more."""

    old: tuple[str, ...] = ()
    """The columns of the key that the old release has; empty if there is none."""
    old_name: str | None = None
    """Its name, where keys have one."""
    new: tuple[str, ...] = ()
    """The columns of the new release's; empty if there is to be none."""
    name: str = ""
    """The name it gets where keys have one."""
    copies: bool = False
    """Whether writers may be kept waiting while the table is copied, where the server cannot do without."""
    retires: bool = False
    """The old key's columns are dropped with it. Foreign keys refer to the new key from migrate on: until contract, a
    unique index that has its name bears them."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {**asdict(self), "old": list(self.old), "new": list(self.new)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KeyChange:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        known = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        return cls(**{**known, "old": tuple(data["old"]), "new": tuple(data["new"])})


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A new column that the server numbers, which becomes the primary key."""

    column: str
    identity: str = ""
    """``BY DEFAULT`` or ``ALWAYS`` for an identity column, where the server has such; else a sequence's values."""
    sequence: str = ""
    """The sequence that numbers it, where the server needs one: its own for good, or until it is an identity."""
    index: str = ""
    """A unique index on it until it is the primary key, where the server numbers only what is indexed."""
    unique: str = ""
    """The unique constraint on the old key's columns; empty if there was no key."""
    copies: bool = False
    """Whether writers may be kept waiting while the table is written anew, where the server cannot do without."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Numbered:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})


@dataclass(frozen=True, kw_only=True)
class Widening:
    """A column that gets a wider type under its own name, for both releases at once."""

    column: str
    old: str
    """The type it had, as the server itself writes it."""
    new: str
    """The type it gets, as SQLAlchemy writes it."""
    shadow: str = ""
    """The name of the second column, where the server cannot change the type in place."""
    replans: bool = False
    """The application is known to run a statement again whose prepared plan does not fit the column any more."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Widening:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})


@dataclass(frozen=True, kw_only=True)
class DefaultChange:
    """Another server default of a column under its own name; SQL texts, None for none."""

    column: str
    old: str | None
    new: str | None
    late: bool
    """Not before contract."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {"column": self.column, "old": self.old, "new": self.new, "late": self.late}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DefaultChange:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(column=data["column"], old=data["old"], new=data["new"], late=data["late"])


@dataclass(frozen=True, kw_only=True)
class Comment:
    """A comment of a table or of one of its columns."""

    column: str | None
    """None for the table itself."""
    text: str | None
    """None for none, never empty."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {"column": self.column, "text": self.text}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comment:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(column=data["column"], text=data["text"])


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Values that an enumerated type of the server's own gets."""

    column: str
    values: tuple[str, ...]
    type_name: str = ""
    """The name of the type, where it has one (PostgreSQL)."""
    native: bool = True
    """The server knows the values; else the column is plain text to it."""
    type_schema: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {**asdict(self), "values": list(self.values)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Labels:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        known = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        return cls(**{**known, "values": tuple(data["values"])})


@dataclass(frozen=True, kw_only=True)
class Mend:
    """What is written into the NULLs of a column, or where rows violate a constraint."""

    column: str
    text: str
    """The value in the server's own SQL, over the table's own row."""
    key: tuple[str, ...]
    """The columns of the primary key."""
    of: str = ""
    """The name of the constraint (or unique index) which the rows violate; empty for NULLs."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {"column": self.column, "text": self.text, "key": list(self.key), "of": self.of}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Mend:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(column=data["column"], text=data["text"], key=tuple(data["key"]), of=data.get("of", ""))


@dataclass(frozen=True, kw_only=True)
class InstalledPair:
    """What one table carries of a pair; or because rows of one table refer to rows of the other one."""

    name: str
    """The stem of the names of triggers and functions; empty where only the other table has any."""
    marker: str
    """Empty if the table has none."""
    old: bool
    """Whether the old release has the columns in this table."""
    fingerprint: str = ""
    triggers: str = ""
    """The last letters of the names of its triggers, one each; see :meth:`contraflow.syncs.Pair.triggers`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {
            "name": self.name,
            "marker": self.marker,
            "old": self.old,
            "fingerprint": self.fingerprint,
            "triggers": self.triggers,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InstalledPair:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(
            name=data["name"],
            marker=data["marker"],
            old=data["old"],
            fingerprint=data.get("fingerprint", ""),
            triggers=data.get("triggers", ""),
        )


@dataclass(frozen=True, kw_only=True)
class InstalledCopy:
    """What one table carries of a column that follows others."""

    name: str
    """The stem of the names of triggers and functions."""
    fingerprint: str
    triggers: str
    """The last letters of the names of its triggers, one each."""
    image: str | None = None
    """The name of the image's column, on the target."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InstalledCopy:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What one table carries because of an upgrade: all that contract and rollback need, as plain data for the journal.

    A later Contraflow can finish from this alone what an earlier one began, without evaluating a lens.
    """

    table: str
    schema: str | None = None
    sync: str | None = None
    """The stem of the sync's object names; None if the table needs no sync."""
    marker: str | None = None
    fingerprint: str = ""
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    relaxed: tuple[str, ...] = ()
    """Old NOT NULL columns without a default, which only the sync fills for the new release."""
    built: tuple[Index, ...] = ()
    """The new release's indexes and unique constraints."""
    replaced: tuple[Index, ...] = ()
    """The old release's, which contract drops."""
    opaque: bool = False
    """The sync's two sides are computed in Python: contract proves first that no marker is NULL."""
    widened: tuple[Widening, ...] = ()
    """Columns with a wider type than the old release declares."""
    pairs: tuple[InstalledPair, ...] = ()
    """The pairs of two tables that this one is a part of; all have one marker column."""
    copies: tuple[InstalledCopy, ...] = ()
    """The columns that follow others by triggers on this table."""
    redefaulted: tuple[DefaultChange, ...] = ()
    commented: tuple[Comment, ...] = ()
    """The comments that contract gives to the table and the columns which both releases have."""
    created: bool = False
    """The table itself is new; ``fingerprint`` is of its definition."""
    removed: bool = False
    """The new release does not know the table."""
    renamed: str | None = None
    """The new release's name of the table."""
    alias: str | None = None
    """The stem of the names of what makes it known under both; None if it is not renamed."""
    constrained: tuple[Constraint, ...] = ()
    """The new release's foreign keys and checks."""
    released: tuple[Constraint, ...] = ()
    """The old release's, which contract drops."""
    mirror: str = ""
    """The stem of the names of what keeps their shadows."""
    labels: tuple[Labels, ...] = ()
    """Values that contract adds to enumerated types."""
    tightened: tuple[str, ...] = ()
    """Columns that contract makes NOT NULL under their own name."""
    loosened: tuple[str, ...] = ()
    """Old NOT NULL columns that may hold NULLs once the upgrade is migrated."""
    mends: tuple[Mend, ...] = ()
    """What contract writes into the NULLs of tightened columns, and rollback into those of loosened ones."""
    key: KeyChange | None = None
    """The other primary key that contract makes; its index is among those ``built``."""
    numbered: Numbered | None = None
    """The column of that key, if the server numbers it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {
            "table": self.table,
            "schema": self.schema,
            "sync": self.sync,
            "marker": self.marker,
            "fingerprint": self.fingerprint,
            "added": list(self.added),
            "dropped": list(self.dropped),
            "not_null": list(self.not_null),
            "defaults": dict(self.defaults),
            "relaxed": list(self.relaxed),
            "built": [index.as_dict() for index in self.built],
            "replaced": [index.as_dict() for index in self.replaced],
            "opaque": self.opaque,
            "widened": [widening.as_dict() for widening in self.widened],
            "pairs": [pair.as_dict() for pair in self.pairs],
            "copies": [copy.as_dict() for copy in self.copies],
            "redefaulted": [change.as_dict() for change in self.redefaulted],
            "commented": [comment.as_dict() for comment in self.commented],
            "created": self.created,
            "removed": self.removed,
            "renamed": self.renamed,
            "alias": self.alias,
            "constrained": [constraint.as_dict() for constraint in self.constrained],
            "released": [constraint.as_dict() for constraint in self.released],
            "mirror": self.mirror,
            "labels": [labels.as_dict() for labels in self.labels],
            "tightened": list(self.tightened),
            "loosened": list(self.loosened),
            "mends": [mend.as_dict() for mend in self.mends],
            "key": self.key.as_dict() if self.key else None,
            "numbered": self.numbered.as_dict() if self.numbered else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Installed:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(
            table=data["table"],
            schema=data.get("schema"),
            sync=data.get("sync"),
            marker=data.get("marker"),
            fingerprint=data.get("fingerprint", ""),
            added=tuple(data.get("added", ())),
            dropped=tuple(data.get("dropped", ())),
            not_null=tuple(data.get("not_null", ())),
            defaults=dict(data.get("defaults", {})),
            relaxed=tuple(data.get("relaxed", ())),
            built=tuple(map(Index.from_dict, data.get("built", ()))),
            replaced=tuple(map(Index.from_dict, data.get("replaced", ()))),
            opaque=bool(data.get("opaque", False)),
            widened=tuple(map(Widening.from_dict, data.get("widened", ()))),
            pairs=tuple(map(InstalledPair.from_dict, data.get("pairs", ()))),
            copies=tuple(map(InstalledCopy.from_dict, data.get("copies", ()))),
            redefaulted=tuple(map(DefaultChange.from_dict, data.get("redefaulted", ()))),
            commented=tuple(map(Comment.from_dict, data.get("commented", ()))),
            created=data.get("created", False),
            removed=data.get("removed", False),
            renamed=data.get("renamed"),
            alias=data.get("alias"),
            constrained=tuple(map(constraint_from_dict, data.get("constrained", ()))),
            released=tuple(map(constraint_from_dict, data.get("released", ()))),
            mirror=data.get("mirror", ""),
            labels=tuple(map(Labels.from_dict, data.get("labels", ()))),
            tightened=tuple(data.get("tightened", ())),
            loosened=tuple(data.get("loosened", ())),
            mends=tuple(map(Mend.from_dict, data.get("mends", ()))),
            key=KeyChange.from_dict(data["key"]) if data.get("key") else None,
            numbered=Numbered.from_dict(data["numbered"]) if data.get("numbered") else None,
        )
