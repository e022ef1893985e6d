"""Whether connections that Contraflow opens itself find the same tables as the one that ``env.py`` gave to Alembic."""

from __future__ import annotations

import sqlalchemy as sa

from contraflow.engine.connect import Database
from contraflow.problems import Problem, ProblemError

__all__ = ["refuse_another_place"]

_POSTGRESQL = "SELECT array_to_string(current_schemas(false), ', ')"
_MYSQL = "SELECT database()"
# Where a table is looked for that is named without a schema: what a session can change after it has connected.
_ASKED = {"postgresql": _POSTGRESQL, "cockroachdb": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}


def refuse_another_place(connection: sa.Connection) -> None:
    """Raise ``CF301`` if ``env.py`` has sent this connection alone to another schema or database, as Alembic's
    cookbook has it for tenants.
    """
    translated = connection.get_execution_options().get("schema_translate_map") or {}
    if None in translated:
        raise _elsewhere(f"translates names to the schema {translated[None]} (schema_translate_map)", "does not")
    query = _ASKED.get(connection.dialect.name)
    if query is None:
        return
    here = connection.exec_driver_sql(query).scalar()
    database = Database(connection.engine)
    try:
        with database.connect() as own:
            there = own.exec_driver_sql(query).scalar()
    finally:
        database.close()
    if here != there:
        raise _elsewhere(f"finds tables in {here or 'no schema'}", f"does in {there or 'none'}")


def _elsewhere(this: str, other: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF301",
            what=f"env.py's connection {this}; a new one of its engine {other}.",
            why="a Change works on connections of its own: the revision would move in one place, and the tables change"
            " in another.",
            instead="let each connection of the engine begin there: by its URL, by connect_args"
            '\n({"options": "-csearch_path=..."}), or by a listener of its event "connect".',
        )
    )
