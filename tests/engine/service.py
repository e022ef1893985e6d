"""A small service in two releases, and what the tests of the engine do with its database."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from contraflow import dialects
from contraflow.engine import Options, Runner
from contraflow.engine.connect import Database as OwnDatabase
from contraflow.expressions import after, before, concat, trim
from contraflow.lens import Lens
from contraflow.operations.columns import AddColumn, DropColumn, RenameColumn, TransformColumns
from contraflow.operations.planning import Declared, Upgrade

TABLES = ("users", "items", "notes", "hollow")
FAST = Options(lock_timeout=0.2, lock_patience=120.0, batch_size=4, max_batch_size=4, latency_budget=5.0)

NAMES = Lens(
    old=["full_name"],
    new=["first_name", "last_name"],
    forward=lambda row: {
        "first_name": before(row.full_name, " "),
        "last_name": after(row.full_name, " "),
    },
    backward=lambda row: {"full_name": trim(concat(row.first_name, " ", row.last_name))},
)


def make_tables(engine: sa.Engine, *, tables: Sequence[str] = TABLES, rows: int = 10) -> None:
    """The old release's tables: a plain key, a composite one with text, none at all, and one without a row."""
    metadata = sa.MetaData()
    sa.Table(
        "users",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("full_name", sa.Text, nullable=False),
        sa.Column("email", sa.String(80), index=True),
        sa.Column("visits", sa.Integer, nullable=False, server_default="0"),
    )
    sa.Table(
        "items",
        metadata,
        sa.Column("shelf", sa.String(20), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("label", sa.String(80), nullable=False),
        sa.Column("obsolete", sa.Integer),
    )
    sa.Table("notes", metadata, sa.Column("id", sa.Integer, nullable=False), sa.Column("body", sa.String(80)))
    sa.Table("hollow", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("word", sa.String(9)))
    chosen = [metadata.tables[name] for name in tables]
    metadata.create_all(engine, chosen)
    data: dict[str, list[dict[str, Any]]] = {
        "users": [{"id": n, "full_name": f"First{n} Last{n}", "email": f"{n}@x"} for n in range(rows)],
        "items": [{"shelf": f"s{n % 3}", "place": n, "label": f"label {n}", "obsolete": n} for n in range(rows)],
        "notes": [{"id": n, "body": f"body {n}"} for n in range(rows)],
    }
    with engine.begin() as connection:
        for table in chosen:
            if found := data.get(table.name):
                connection.execute(sa.insert(table), found)


def changes(*, until: int = 3, tables: Sequence[str] = TABLES) -> tuple[Declared, ...]:
    """The declarations of the new release: three revisions."""
    names = [
        sa.Column("first_name", sa.Text, nullable=False),
        sa.Column("last_name", sa.Text, nullable=False),
    ]
    declared = (
        ("split names", (TransformColumns(table="users", columns=names, lens=NAMES),)),
        (
            "words",
            (
                RenameColumn(table="items", old="label", new="title"),
                DropColumn(table="items", column="obsolete"),
                RenameColumn(table="notes", old="body", new="text"),
                RenameColumn(table="hollow", old="word", new="term"),
            ),
        ),
        ("stars", (AddColumn(table="notes", column=sa.Column("stars", sa.Integer)),)),
    )
    return tuple(
        Declared(
            revision=f"r{number}",
            operations=tuple(operation for operation in operations if operation.table in tables),
            doc=doc,
        )
        for number, (doc, operations) in enumerate(declared[:until], start=1)
    )


def upgrade(*, until: int = 3, tables: Sequence[str] = TABLES) -> Upgrade:
    """The upgrade from ``r0`` to the revision numbered ``until``."""
    return Upgrade(old="r0", new=f"r{until}", changes=changes(until=until, tables=tables))


class Killed(BaseException):
    """What a killed process would not see: nothing of the library may catch it."""


@dataclass(kw_only=True)
class Killer:
    """Lets ``survive`` statements that make something last pass, then kills: no later statement is sent at
    all.

    A statement inside a transaction does not count, only its COMMIT: until then, a kill leaves what the one
    before BEGIN left.
    """

    survive: int
    seen: list[str] = field(default_factory=list)
    dead: bool = False
    _within: bool = False

    def __call__(self, statement: Any) -> None:
        if self.dead:
            raise Killed
        first = statement.sql.split(None, 1)[0].upper()
        if first in ("BEGIN", "START"):
            self._within = True
            return
        if first in ("COMMIT", "ROLLBACK"):
            self._within = False
        elif self._within or first in ("SELECT", "SHOW", "SET", "RESET", "PRAGMA", "ROLLBACK"):
            return
        if len(self.seen) == self.survive:
            self.dead = True
            raise Killed
        self.seen.append(statement.sql)


def runner(url: sa.URL, declared: Upgrade | None = None, **options: Any) -> Runner:
    """A runner with the tests' options."""
    options.setdefault("options", FAST)
    return Runner(url, declared, **options)


def run_killed(url: sa.URL, declared: Upgrade, verbs: Sequence[str], *, survive: int = 10**9) -> Killer:
    """Run ``verbs`` until the statement after ``survive`` ones, as a process that is then killed."""
    killer = Killer(survive=survive)
    with runner(url, declared, before_statement=killer) as killed, contextlib.suppress(Killed):
        for verb in verbs:
            getattr(killed, verb)()
    return killer


# -- the two releases ---


@dataclass(kw_only=True)
class Writers:
    """Writes as each release does, and knows what every row must read in the end."""

    engine: sa.Engine
    items: bool = True
    number: int = 1000
    names: dict[int, str] = field(default_factory=dict)
    labels: dict[tuple[str, int], str] = field(default_factory=dict)

    def old(self) -> None:
        """Insert and update in the old shape, and read both back. Raises what the server raises."""
        n = self.number = self.number + 1
        with self.engine.begin() as connection:
            run(connection, "INSERT INTO users (id, full_name, email) VALUES (:n, :name, 'e')", n=n, name=f"Old N{n}")
            run(connection, "UPDATE users SET full_name = :name WHERE id = 1", name=f"Old One{n}")
            run(connection, "UPDATE users SET visits = visits + 1")
            if self.items:
                run(
                    connection, "INSERT INTO items (shelf, place, label) VALUES ('old', :n, :label)", n=n, label=f"o{n}"
                )
            found = connection.execute(sa.text("SELECT full_name FROM users WHERE id IN (1, :n) ORDER BY id"), {"n": n})
            assert list(found.scalars()) == [f"Old One{n}", f"Old N{n}"]
        self.names.update({1: f"Old One{n}", n: f"Old N{n}"})
        if self.items:
            self.labels["old", n] = f"o{n}"

    def new(self) -> None:
        """The same in the new shape."""
        n = self.number = self.number + 1
        with self.engine.begin() as connection:
            run(
                connection,
                "INSERT INTO users (id, first_name, last_name, email) VALUES (:n, 'New', :last, 'e')",
                n=n,
                last=f"N{n}",
            )
            run(connection, "UPDATE users SET last_name = :last WHERE id = 2", last=f"New{n}")
            run(connection, "UPDATE users SET visits = visits + 1")
            if self.items:
                run(
                    connection, "INSERT INTO items (shelf, place, title) VALUES ('new', :n, :title)", n=n, title=f"n{n}"
                )
            found = connection.execute(sa.text("SELECT last_name FROM users WHERE id IN (2, :n) ORDER BY id"), {"n": n})
            assert list(found.scalars()) == [f"New{n}", f"N{n}"]
        self.names.update({2: f"First2 New{n}", n: f"New N{n}"})
        if self.items:
            self.labels["new", n] = f"n{n}"

    def check_old(self) -> None:
        """Everything written reads right in the old shape."""
        self._check("SELECT id, full_name FROM users", "SELECT shelf, place, label FROM items")

    def check_new(self) -> None:
        """Everything written reads right in the new shape."""
        self._check("SELECT id, first_name, last_name FROM users", "SELECT shelf, place, title FROM items")

    def _check(self, users: str, items: str) -> None:
        with self.engine.connect() as connection:
            names = {row[0]: " ".join(row[1:]) for row in connection.execute(sa.text(users))}
            found = connection.execute(sa.text(items)).all() if self.items else []
        labels = {(shelf, place): label for shelf, place, label in found}
        assert names == {n: f"First{n} Last{n}" for n in names if n < 1000} | self.names
        assert labels == {key: f"label {key[1]}" for key in labels if key[1] < 1000} | self.labels


def run(connection: sa.Connection, sql: str, **parameters: Any) -> None:
    connection.execute(sa.text(sql), parameters)


def count(connection: sa.Connection, sql: str, **parameters: Any) -> int:
    """The number that a query yields."""
    found: int = connection.execute(sa.text(sql), parameters).scalar_one()
    return found


# -- what stands in the database ---


def snapshot(engine: sa.Engine) -> dict[str, Any]:
    """The schema of the service's tables, as exactly as the server tells, with triggers and functions."""
    found: dict[str, Any] = {}
    own = OwnDatabase(engine.url)
    with own.connect() as connection:
        adapter = dialects.choose(connection)
        inspector = sa.inspect(connection)
        tables = [name for name in TABLES if inspector.has_table(name)]
        for table in tables:
            columns = [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table)]
            found[table] = {
                "columns": columns,
                "key": inspector.get_pk_constraint(table),
                "indexes": inspector.get_indexes(table),
                "checks": inspector.get_check_constraints(table),
                "triggers": sorted(adapter.find(connection, table, None).triggers),
            }
        if connection.dialect.name == "sqlite":
            sql = "SELECT name, sql FROM sqlite_schema WHERE tbl_name NOT LIKE 'contraflow%' ORDER BY name"
            found["sql"] = [tuple(row) for row in connection.exec_driver_sql(sql)]
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        if connection.dialect.name == "postgresql":
            functions = "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace ORDER BY 1"
            found["functions"] = list(connection.exec_driver_sql(functions).scalars())
        if connection.dialect.name in ("mysql", "mariadb"):
            for table in tables:
                found[table]["create"] = connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1]
    own.close()
    return found


def contents(engine: sa.Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the service's tables, without the marker."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    with engine.connect() as connection:
        for table in (name for name in TABLES if sa.inspect(connection).has_table(name)):
            names = [column["name"] for column in sa.inspect(connection).get_columns(table)]
            names = sorted(name for name in names if name != "cf_marker")
            query: Any = sa.select(*(sa.column(name) for name in names)).select_from(sa.table(table))
            rows[table] = sorted((tuple(row) for row in connection.execute(query)), key=repr)
    return rows


def start_over(engine: sa.Engine, *, journal: bool = False) -> None:
    """Drop the service's tables and empty the journal's (or drop them too): much faster than a new database."""
    with engine.begin() as connection:
        metadata = sa.MetaData()
        metadata.reflect(connection, resolve_fks=False)
        service = [table for table in metadata.sorted_tables if journal or table.name in TABLES]
        metadata.drop_all(connection, service)
        for table in metadata.sorted_tables:
            if table not in service:
                connection.execute(sa.delete(table))
        if connection.dialect.name == "postgresql":
            names = "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"
            for name in list(connection.exec_driver_sql(names).scalars()):
                connection.exec_driver_sql(f'DROP FUNCTION "{name}"')
