"""The two lenses that are measured: tables, upgrades, statements of either release, rows."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from contraflow import Declared, Lens, RenameColumn, TransformColumns, Upgrade
from contraflow.expressions import after, before, concat, substr, trim

__all__ = ["MARKER", "SCENES", "Scene", "create_table", "fill"]

MARKER = "cf_marker"
"""The marker's name where triggers are written by hand: the library's own, so that the texts are equally long."""

_NAMES = Lens(
    old=["full_name"],
    new=["first_name", "last_name"],
    forward=lambda row: {"first_name": before(row.full_name, " "), "last_name": after(row.full_name, " ")},
    backward=lambda row: {"full_name": substr(trim(concat(row.first_name, " ", row.last_name)), 1, 120)},
    lossy=True,  # spaces at the ends of a name
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One lens on one table: ``full_name`` becomes the ``new`` columns."""

    name: str
    new: tuple[str, ...]

    def upgrade(self, table: str) -> Upgrade:
        """The upgrade of ``table``."""
        operation: RenameColumn | TransformColumns
        if self.name == "rename":
            operation = RenameColumn(table=table, old="full_name", new="display_name")
        else:
            columns = [sa.Column(name, sa.String(120), nullable=False) for name in self.new]
            operation = TransformColumns(table=table, columns=columns, lens=_NAMES)
        return Upgrade(old="1", new="2", changes=(Declared(revision="2", operations=(operation,)),))

    def new_values(self, text: str) -> tuple[str, ...]:
        """What the new release writes for the name ``text``."""
        return (text,) if self.name == "rename" else tuple(text.split(" ", 1))

    def images(self, product: str) -> str:
        """``new = f(old), ...`` as one would write it by hand, for the plain UPDATE of a whole table."""
        if self.name == "rename":
            return "display_name = full_name"
        if product == "sqlite":
            return (
                "first_name = substr(full_name, 1, instr(full_name || ' ', ' ') - 1),"
                " last_name = substr(full_name, instr(full_name || ' ', ' ') + 1)"
            )
        if product == "postgresql":
            return (
                "first_name = split_part(full_name, ' ', 1),"
                " last_name = substr(full_name, strpos(full_name || ' ', ' ') + 1)"
            )
        # MySQL and MariaDB assign from left to right.
        return (
            "first_name = SUBSTRING_INDEX(full_name, ' ', 1),"
            " last_name = SUBSTRING(full_name, CHAR_LENGTH(first_name) + 2)"
        )


SCENES = (
    Scene(name="rename", new=("display_name",)),
    Scene(name="split", new=("first_name", "last_name")),
)


def create_table(connection: sa.Connection, name: str) -> None:
    """The table in its old shape."""
    table = sa.Table(
        name,
        sa.MetaData(),
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("full_name", sa.String(120), nullable=False),
        sa.Column("email", sa.String(120), nullable=False),
        sa.Column("visits", sa.Integer, nullable=False),
    )
    table.create(connection)


def fill(connection: sa.Connection, table: str, rows: int) -> None:
    """Give an empty table rows 1 to ``rows``, in one statement each 100 000; ``connection`` is in AUTOCOMMIT."""
    backend = connection.dialect.name
    joined = ("CONCAT('Annabel', n, ' Leechman')", "CONCAT('annabel.', n, '@example.org')")
    if backend == "sqlite":
        joined = ("'Annabel' || n || ' Leechman'", "'annabel.' || n || '@example.org'")
    for start in range(1, rows + 1, 100_000):
        end = min(rows, start + 99_999)
        series = f"WITH RECURSIVE s(n) AS (SELECT {start} UNION ALL SELECT n + 1 FROM s WHERE n < {end})"
        query = f"SELECT n, {joined[0]}, {joined[1]}, 0 FROM s"
        insert = f"INSERT INTO {table} (id, full_name, email, visits)"
        if backend in ("mysql", "mariadb"):
            mariadb = getattr(connection.dialect, "is_mariadb", False)
            limit = "max_recursive_iterations" if mariadb else "cte_max_recursion_depth"
            connection.exec_driver_sql(f"SET SESSION {limit} = 1000000")
            connection.exec_driver_sql(f"{insert} {series} {query}")
        else:
            connection.exec_driver_sql(f"{series} {insert} {query}")
    if backend == "postgresql":
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")
    else:
        connection.exec_driver_sql(f"ANALYZE {'TABLE ' if backend != 'sqlite' else ''}{table}")
