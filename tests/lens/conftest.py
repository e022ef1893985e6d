"""A table of odd values, and a way to compute lens expressions over it on a server."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import expressions
from contraflow.dialects.compiler import Compiler, compiler_for
from contraflow.lens import Row
from tests.lens.cases import columns
from tests.servers.shared import Database

Expression = sa.ColumnElement[Any]


def product_of(engine: sa.Engine) -> str:
    """The server product behind an engine, as a profile names it."""
    with engine.connect() as connection:
        name = connection.dialect.name
        return "mariadb" if getattr(connection.dialect, "is_mariadb", False) else name


@dataclass(kw_only=True)
class Calculator:
    """Computes expressions of the lens language over rows stored on a server."""

    engine: sa.Engine
    product: str
    table: sa.Table
    compiler: Compiler

    @property
    def row(self) -> Row:
        """What a lens function would receive."""
        return Row(
            {
                column.name: expressions.Ref(column.name, column.type)
                for column in self.table.columns
                if column.name != "id"
            }
        )

    def store(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make these the rows of the table."""
        names = [column.name for column in self.table.columns if column.name != "id"]
        values = [{"id": place, **{name: row.get(name) for name in names}} for place, row in enumerate(rows)]
        with self.engine.begin() as connection:
            connection.execute(self.table.delete())
            connection.execute(self.table.insert(), values)

    def sql(self, expression: Expression) -> str:
        """The expression as the server's SQL."""
        return self.compiler.compile(expression, self.compiler.quote)

    def compute(self, expressions_: Iterable[Expression], before: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """The values of the expressions for each stored row, in order; ``before`` are statements of the session."""
        texts = ", ".join(f"({self.sql(expression)})" for expression in expressions_)
        with self.engine.connect() as connection:
            for statement in before:
                connection.exec_driver_sql(statement)
            query = f"SELECT {texts} FROM {self.compiler.quote(self.table.name)} ORDER BY id"
            found = connection.exec_driver_sql(query, execution_options={"no_parameters": True})
            return [tuple(row) for row in found]


def plain(value: Any, like: Any) -> Any:
    """A value as the driver gives it, as the Python type of ``like``: drivers differ, values may not."""
    if value is None or like is None:
        return value
    if isinstance(like, bool):
        return bool(value) if value in (0, 1) else value
    if isinstance(like, (dict, list)):
        return json.loads(value) if isinstance(value, (str, bytes)) else value
    if isinstance(like, dt.datetime):
        return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(like, Decimal):
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if isinstance(like, int):
        return f"a float: {value}" if isinstance(value, float) else int(value)
    return value.decode() if isinstance(value, bytes) else value


COLLATIONS = {"sqlite": "NOCASE", "mysql": "utf8mb4_0900_ai_ci", "mariadb": "utf8mb4_general_ci"}
"""A collation of each server that does not see case (and on some, neither accents nor trailing spaces)."""


@pytest.fixture
def calculator(database: Database) -> Calculator:
    """A calculator whose text column has a case-insensitive collation, where one is built in."""
    product = product_of(database.engine)
    table = sa.Table(
        "odd values",
        sa.MetaData(),
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        *columns(product, COLLATIONS.get(product)),
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )
    table.create(database.engine)
    return Calculator(engine=database.engine, product=product, table=table, compiler=compiler_for(product))
