"""A server's profile and tables as a file, so that SQL can be written without a connection.

Types are recorded by their class in SQLAlchemy and the arguments it was made with; each is rebuilt and compared
when it is recorded, so a file never holds one that would come back different.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from contraflow.dialects.base import Found, Profile
from contraflow.engine.connect import Database
from contraflow.engine.schema import old_shape, spell_types
from contraflow.installed import Index
from contraflow.operations.base import TableName
from contraflow.operations.held import index_of, put_index
from contraflow.operations.planning import Upgrade, tables_of
from contraflow.problems import Problem, ProblemError

__all__ = ["FORMAT", "FoundTables", "Recorded", "read", "record", "write"]

FORMAT = 1
"""The version of the file's format."""

FoundTables: TypeAlias = Mapping[TableName, Found]
_SET = "a set of"

_TRUSTED = ("sqlalchemy", "sqlalchemy_cockroachdb")
"""Packages whose types a file may name: reading a file must not import what somebody else wrote into it."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A server as it was when it was recorded: its profile, and the tables of an upgrade in their old shape."""

    profile: Profile
    tables: Mapping[TableName, sa.Table]
    found: FoundTables
    """What the adapter found on each table."""


def record(path: Path, source: str | sa.URL | sa.Engine, upgrade: Upgrade) -> None:
    """Write to ``path`` what is to be known of the live server at ``source`` to compile ``upgrade`` for it without
    a connection.

    The tables must be in their old shape: before expand, or after a rollback.

    Raises :class:`~contraflow.problems.ProblemError`: ``CF201`` if the server cannot be reached, otherwise as
    :func:`write`.
    """
    database = Database(source)
    try:
        with database.connect() as connection:
            tables = old_shape(connection, database.adapter, tables_of(upgrade))
            found = {(schema, name): database.adapter.find(connection, name, schema) for schema, name in tables}
            write(path, Recorded(profile=database.adapter.profile, tables=tables, found=found), connection.dialect)
    finally:
        database.close()


def write(path: Path, recorded: Recorded, dialect: sa.Dialect) -> None:
    """Write ``recorded`` to ``path``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF304`` for a column whose type cannot be recorded.
    """
    document = {
        "format": FORMAT,
        "profile": recorded.profile.as_dict(),
        "tables": [
            {
                **_table(table, dialect),
                "found": _plain(asdict(recorded.found[name]) if name in recorded.found else None),
            }
            for name, table in recorded.tables.items()
        ],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Recorded:
    """Read what :func:`write` wrote.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF304`` if there is no such file or it is not one of
    ours.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise _unreadable(path, f"its format is {document['format']}, not {FORMAT}")
        tables = [_rebuilt_table(table) for table in document["tables"]]
        profile = Profile.from_dict(document["profile"])
        found = {
            (table["schema"], table["name"]): Found(**_revived(table["found"]))
            for table in document["tables"]
            if table["found"]
        }
    except FileNotFoundError as error:
        raise _unreadable(path, "it does not exist") from error
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    for table in tables:
        if (table.schema, table.name) in found:
            spell_types(table, found[table.schema, table.name].details.get("types", {}))
    return Recorded(profile=profile, tables={(table.schema, table.name): table for table in tables}, found=found)


def _plain(value: Any) -> Any:
    """What an adapter found, for JSON: its sets are told from its lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return {_SET: sorted(value)}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _revived(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset(value[_SET]) if _SET in value else {key: _revived(item) for key, item in value.items()}
    return tuple(map(_revived, value)) if isinstance(value, list) else value


def _unreadable(path: Path, reason: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF304",
            what=f"the recorded profile {path} cannot be used: {reason}.",
            instead=f"record it again, connected to the server: contraflow plan --record {path.name}",
        )
    )


# -- tables --------------------------------------------------------------------------------------------------


def _table(table: sa.Table, dialect: sa.Dialect) -> dict[str, Any]:
    return {
        "name": table.name,
        "schema": table.schema,
        "columns": [_column(table, column, dialect) for column in table.columns],
        "primary_key": {
            "name": table.primary_key.name,
            "columns": [column.name for column in table.primary_key.columns],
        },
        "constraints": [entry for entry in map(_constraint, _ordered(table.constraints)) if entry is not None],
        "indexes": [index_of(index).as_dict() for index in _ordered(table.indexes)],
    }


def _ordered(things: Iterable[Any]) -> list[Any]:
    """Constraints and indexes are sets; a file must not change from one writing to the next."""
    return sorted(things, key=lambda thing: (type(thing).__name__, str(thing.name), str(list(thing.columns))))


def _rebuilt_table(entry: Mapping[str, Any]) -> sa.Table:
    table = sa.Table(
        entry["name"],
        sa.MetaData(),
        *map(_rebuilt_column, entry["columns"]),
        sa.PrimaryKeyConstraint(*entry["primary_key"]["columns"], name=entry["primary_key"]["name"]),
        *map(_rebuilt_constraint, entry["constraints"]),
        schema=entry["schema"],
    )
    for index in entry["indexes"]:
        put_index(table, Index.from_dict({"constraint": False, "late": False, **index}))
    return table


def _constraint(constraint: sa.Constraint) -> dict[str, Any] | None:
    name = constraint.name
    if isinstance(constraint, sa.UniqueConstraint):
        return {"kind": "unique", "name": name, "columns": [column.name for column in constraint.columns]}
    if isinstance(constraint, sa.CheckConstraint):
        return {"kind": "check", "name": name, "text": str(constraint.sqltext)}
    if isinstance(constraint, sa.ForeignKeyConstraint):
        return {
            "kind": "foreign",
            "name": name,
            "columns": list(constraint.column_keys),
            "targets": [element.target_fullname for element in constraint.elements],
            "ondelete": constraint.ondelete,
            "onupdate": constraint.onupdate,
        }
    return None


def _rebuilt_constraint(entry: Mapping[str, Any]) -> sa.Constraint:
    if entry["kind"] == "unique":
        return sa.UniqueConstraint(*entry["columns"], name=entry["name"])
    if entry["kind"] == "check":
        return sa.CheckConstraint(entry["text"], name=entry["name"])
    return sa.ForeignKeyConstraint(
        entry["columns"],
        entry["targets"],
        name=entry["name"],
        ondelete=entry["ondelete"],
        onupdate=entry["onupdate"],
        # The tables it points to are not in the file.
        link_to_name=True,
    )


# -- columns -------------------------------------------------------------------------------------------------


def _column(table: sa.Table, column: sa.Column[Any], dialect: sa.Dialect) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": column.name,
        "type": _type(column.type),
        "nullable": column.nullable,
        "autoincrement": column.autoincrement,
        "comment": column.comment,
    }
    if isinstance(column.server_default, sa.DefaultClause):
        argument = column.server_default.arg
        entry["default"] = argument if isinstance(argument, str) else str(argument)
    if column.computed is not None:
        entry["computed"] = {"text": str(column.computed.sqltext), "persisted": column.computed.persisted}
    if column.identity is not None:
        entry["identity"] = {"always": column.identity.always}
    if not _comes_back(column.type, entry["type"], dialect):
        raise ProblemError(
            Problem(
                code="CF304",
                what=f"the type {column.type!r} of {table.name}.{column.name} cannot be recorded.",
                why="a plan made from the file would differ from one made on the server.",
                instead="plan this upgrade on the server: contraflow plan --sql",
            )
        )
    return entry


def _comes_back(type_: TypeEngine[Any], entry: Mapping[str, Any], dialect: sa.Dialect) -> bool:
    try:
        rebuilt = _rebuilt_type(entry)
    except (ValueError, TypeError, AttributeError, ImportError):
        return False
    return type(rebuilt) is type(type_) and rebuilt.compile(dialect) == type_.compile(dialect)


def _rebuilt_column(entry: Mapping[str, Any]) -> sa.Column[Any]:
    extra: list[Any] = []
    if "computed" in entry:
        extra.append(sa.Computed(entry["computed"]["text"], entry["computed"]["persisted"]))
    if "identity" in entry:
        extra.append(sa.Identity(always=entry["identity"]["always"]))
    return sa.Column(
        entry["name"],
        _rebuilt_type(entry["type"]),
        *extra,
        nullable=entry["nullable"],
        autoincrement=entry["autoincrement"],
        comment=entry["comment"],
        server_default=sa.text(entry["default"]) if "default" in entry else None,
    )


def _type(type_: TypeEngine[Any]) -> dict[str, Any]:
    cls = type(type_)
    arguments: dict[str, Any] = {}
    for ancestor in reversed(cls.__mro__):
        if "__init__" not in vars(ancestor):
            continue
        for name, parameter in inspect.signature(vars(ancestor)["__init__"]).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                continue
            # Deprecated in SQLAlchemy 2.1: asking for it warns.
            value = getattr(type_, name, None) if name != "inherit_schema" else None
            if isinstance(value, TypeEngine):
                arguments[name] = {"type": _type(value)}
            elif isinstance(value, (str, int, bool)) and value != parameter.default:
                arguments[name] = value
    entry: dict[str, Any] = {"class": f"{cls.__module__}:{cls.__qualname__}", "arguments": arguments}
    if isinstance(type_, sa.Enum):
        entry["values"] = list(type_.enums)
    elif isinstance(values := getattr(type_, "values", None), (list, tuple)):  # MySQL's SET
        entry["values"] = list(values)
    return entry


def _rebuilt_type(entry: Mapping[str, Any]) -> TypeEngine[Any]:
    module, _, name = entry["class"].partition(":")
    if module.partition(".")[0] not in _TRUSTED:
        raise ValueError(f"{entry['class']} is not a type of SQLAlchemy")
    cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, TypeEngine)):
        raise TypeError(f"{entry['class']} is not a type")
    arguments = {
        name: _rebuilt_type(value["type"]) if isinstance(value, Mapping) else value
        for name, value in entry["arguments"].items()
    }
    # A class takes only what its own constructor names; the rest are its ancestors' and come with it.
    accepted = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        arguments = {name: value for name, value in arguments.items() if name in accepted}
    return cls(*entry.get("values", ()), **arguments)
