"""MariaDB 10.6 and later: where it differs from MySQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Found
from contraflow.dialects.mysql import MySQLAdapter

__all__ = ["MariaDBAdapter"]


class MariaDBAdapter(MySQLAdapter):
    """MariaDB."""

    product = "mariadb"
    floor = (10, 6)
    shows_indexed_columns = False
    _growing = 127

    def _prepare_more(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET SESSION max_statement_time = 0")

    def _has_default(self, default: object, extra: str) -> bool:  # noqa: ARG002 - for MySQL
        return default is not None and default != "NULL"

    def _is_worn(self, connection: sa.Connection, table: str, schema: str | None) -> bool:  # noqa: ARG002
        return False  # MariaDB does not count instant changes

    def _expressions(self, rows: Callable[[str], list[Any]]) -> dict[str, tuple[bool, str]]:  # noqa: ARG002
        return {}  # MariaDB has no indexes over expressions

    def _type(self, column: str, type_: str, create: str) -> str:
        return "json" if f"json_valid({self.compiler.quote(column)})" in create else type_

    def _needs_copy(self, name: str, found: Found) -> bool:
        # TIMESTAMP NOT NULL turns a NULL into the present time, even with a constant default: error 1846 in place.
        return bool(found.details["fulltext"]) or str(found.details["types"].get(name, "")).startswith("timestamp")

    def _is_cut(self, column: str) -> bool:  # noqa: ARG002 - MariaDB keeps no names of dropped columns
        return False
