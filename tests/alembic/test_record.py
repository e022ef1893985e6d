"""A recorded server and its tables come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from contraflow.alembic import record
from contraflow.dialects.base import Found, Profile
from contraflow.problems import ProblemError
from tests.servers.shared import Database

PROFILE = Profile(product="sqlite", version=(3, 40, 1), settings={"default_schema": "main"})

SQLITE: sa.Dialect = sqlite.dialect()
POSTGRESQL: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
MYSQL: sa.Dialect = mysql.dialect()

TYPES: list[tuple[sa.types.TypeEngine[Any], sa.Dialect]] = [
    (sa.VARCHAR(30), SQLITE),
    (sa.NUMERIC(10, 2), SQLITE),
    (sa.BOOLEAN(), POSTGRESQL),
    (postgresql.TIMESTAMP(timezone=True, precision=3), POSTGRESQL),
    (postgresql.JSONB(), POSTGRESQL),
    (postgresql.UUID(), POSTGRESQL),
    (postgresql.ARRAY(sa.VARCHAR(5)), POSTGRESQL),
    (postgresql.ENUM("new", "it's", name="mood", schema="app"), POSTGRESQL),
    (postgresql.INTERVAL(fields="DAY TO SECOND"), POSTGRESQL),
    (mysql.VARCHAR(30, charset="utf8mb4", collation="utf8mb4_bin"), MYSQL),
    (mysql.BIGINT(unsigned=True), MYSQL),
    (mysql.TINYINT(display_width=1), MYSQL),
    (mysql.DATETIME(fsp=6), MYSQL),
    (mysql.ENUM("a", "b", collation="utf8mb4_bin"), MYSQL),
    (mysql.SET("x", "y"), MYSQL),
    (mysql.DECIMAL(12, 4, unsigned=True), MYSQL),
    (mysql.LONGTEXT(), MYSQL),
]


FOUND = Found(
    exists=True,
    columns={"c": True},
    triggers={"t": "text"},
    details={"on_update": ("c",), "defaults": frozenset({"c"})},
)


def write(path: Path, table: sa.Table, dialect: sa.Dialect) -> None:
    name = table.schema, table.name
    record.write(path, record.Recorded(profile=PROFILE, tables={name: table}, found={name: FOUND}), dialect)


@pytest.mark.parametrize(("type_", "dialect"), TYPES, ids=lambda value: repr(value)[:40])
def test_types_come_back(tmp_path: Path, type_: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("c", type_))
    path = tmp_path / "profile.json"
    write(path, table, dialect)
    back = record.read(path).tables[None, "t"].columns["c"].type
    assert type(back) is type(type_)
    assert back.compile(dialect) == type_.compile(dialect)


def test_a_reflected_table_comes_back(tmp_path: Path, database: Database) -> None:
    metadata = sa.MetaData()
    sa.Table("project", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "account",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, server_default="it's 100%"),
        sa.Column("balance", sa.Numeric(10, 2), server_default=sa.text("0")),
        sa.Column("project_id", sa.Integer, sa.ForeignKey("project.id", name="account_project")),
        sa.Column("twice", sa.Integer, sa.Computed("project_id * 2", persisted=True)),
        sa.UniqueConstraint("name", name="account_name"),
        sa.CheckConstraint("balance >= 0", name="account_balance"),
        sa.Index("account_name_balance", "balance", "name"),
    )
    metadata.create_all(database.engine)
    reflected = sa.Table("account", sa.MetaData(), autoload_with=database.engine)
    path = tmp_path / "profile.json"
    write(path, reflected, database.engine.dialect)
    recorded = record.read(path)
    assert recorded.profile == PROFILE
    assert recorded.found == {(None, "account"): FOUND}
    back = recorded.tables[None, "account"]
    assert shape(back, database.engine.dialect) == shape(reflected, database.engine.dialect)
    again = tmp_path / "again.json"
    write(again, back, database.engine.dialect)
    assert again.read_text() == path.read_text()


def held(constraint: Any) -> str:
    return str(list(constraint.columns.keys()))


def shape(table: sa.Table, dialect: sa.Dialect) -> dict[str, Any]:
    return {
        "columns": [
            (
                column.name,
                column.type.compile(dialect),
                column.nullable,
                column.primary_key,
                str(getattr(column.server_default, "arg", None)),
                str(column.computed.sqltext) if column.computed is not None else None,
                column.autoincrement,
            )
            for column in table.columns
        ],
        "constraints": sorted(
            (type(constraint).__name__, str(constraint.name), held(constraint))
            for constraint in table.constraints
            if not isinstance(constraint, sa.CheckConstraint)
        ),
        "checks": sorted(
            str(constraint.sqltext) for constraint in table.constraints if isinstance(constraint, sa.CheckConstraint)
        ),
        "targets": sorted(
            element.target_fullname for constraint in table.foreign_key_constraints for element in constraint.elements
        ),
        "indexes": sorted(
            (str(index.name), index.unique, str([column.name for column in index.columns])) for index in table.indexes
        ),
    }


class Odd(sa.types.UserDefinedType[str]):
    def get_col_spec(self, **_: Any) -> str:
        return "ODD"


def test_a_type_of_elsewhere_is_not_recorded(tmp_path: Path) -> None:
    column: sa.Column[Any] = sa.Column("c", Odd())
    table: sa.Table = sa.Table("t", sa.MetaData(), column)
    with pytest.raises(ProblemError, match="CF304"):
        write(tmp_path / "profile.json", table, SQLITE)
    assert not (tmp_path / "profile.json").exists()


def test_an_index_over_a_part_of_the_rows_does_not_come_back_as_one_over_all(tmp_path: Path) -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.INTEGER), sa.Column("b", sa.INTEGER))
    sa.Index("ux", table.c.b, sa.text("(abs(a))"), unique=True, sqlite_where=sa.text("a > 0"), _table=table)
    path = tmp_path / "profile.json"
    write(path, table, SQLITE)
    (found,) = record.read(path).tables[None, "t"].indexes
    before, back = (
        " ".join(
            str(sa.schema.CreateIndex(index).compile(dialect=SQLITE)).replace("((", "(").replace("))", ")").split()
        )
        for index in (next(iter(table.indexes)), found)
    )
    assert back == before


def document(**changes: Any) -> dict[str, Any]:
    column = {"name": "c", "type": {"class": "sqlalchemy.types:Integer", "arguments": {}}, "nullable": True}
    column |= {"autoincrement": "auto", "comment": None}
    table: dict[str, Any] = {
        "name": "t",
        "schema": None,
        "columns": [column],
        "primary_key": {"name": None, "columns": []},
        "constraints": [],
        "indexes": [],
        "found": None,
    }
    return {"format": record.FORMAT, "profile": PROFILE.as_dict(), "tables": [table]} | changes


def test_a_file_of_ours_is_read(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(document()))
    assert isinstance(record.read(path).tables[None, "t"].columns["c"].type, sa.Integer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps(document(format=99)),
        json.dumps(document(profile={})),
        json.dumps(document(tables=[{}])),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ProblemError, match="CF304"):
        record.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"CF304.*does not exist"):
        record.read(tmp_path / "profile.json")


@pytest.mark.parametrize("name", ["os:system", "sqlalchemy:create_engine", "sqlalchemy.types:sa", "subprocess:Popen"])
def test_a_file_cannot_name_what_is_not_a_type(tmp_path: Path, name: str) -> None:
    made = document()
    made["tables"][0]["columns"][0]["type"]["class"] = name
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(made))
    with pytest.raises(ProblemError, match="CF304"):
        record.read(path)
