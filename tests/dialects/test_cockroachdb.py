"""What is compiled for CockroachDB, against the limits that its documentation states. It is not run here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.dialects import Adapter, Found, Profile, for_profile
from contraflow.dialects.sync import function_name
from contraflow.expressions import (
    after,
    before,
    concat,
    decimal_shift,
    epoch_us,
    json_put,
    json_text,
    lower,
    to_integer,
    trim,
    upper,
)
from contraflow.lens import Lens
from contraflow.steps import Backfill, Probe
from tests.dialects.support import MARKER, RENAME, Case

LENSES = {
    "rename": RENAME,
    "split": Lens(
        old=["fullname"],
        new=["first", "last"],
        forward=lambda row: {"first": before(row.fullname, " "), "last": after(row.fullname, " ")},
        backward=lambda row: {"fullname": trim(concat(row.first, " ", row.last))},
    ),
    "case": Lens(
        old=["a"],
        new=["b"],
        forward=lambda row: {"b": lower(row.a)},
        backward=lambda row: {"a": upper(row.b)},
        winner="old",
        omitted="old",
    ),
    "number": Lens(old=["text"], new=["number"], forward=lambda row: {"number": to_integer(row.text)}),
    "price": Lens(old=["cents"], new=["price"], forward=lambda row: {"price": decimal_shift(row.cents, 2)}),
    "time": Lens(old=["at"], new=["us"], forward=lambda row: {"us": epoch_us(row.at)}),
    "json": Lens(
        old=["extra"],
        new=["email"],
        forward=lambda row: {"email": json_text(row.extra, "email")},
        backward=lambda row: {"extra": json_put(row.extra, "email", row.email)},
    ),
}
TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "number": sa.BigInteger(),
    "cents": sa.BigInteger(),
    "price": sa.Numeric(10, 2),
    "at": sa.DateTime(),
    "us": sa.BigInteger(),
    "extra": sa.JSON(),
}

# Limits of triggers and PL/pgSQL, up to v26.1 (https://www.cockroachlabs.com/docs/stable/triggers, .../plpgsql).
FORBIDDEN = {
    "a trigger cannot be replaced": r"OR REPLACE",
    "no UPDATE OF": r"UPDATE\s+OF\b",
    "no INSTEAD OF": r"INSTEAD\s+OF",
    "no statement triggers": r"FOR EACH STATEMENT",
    "no REFERENCING": r"REFERENCING",
    "no %TYPE": r"%(ROW)?TYPE",
    "no PERFORM": r"\bPERFORM\b",
    "no dynamic EXECUTE": r"\bEXECUTE\b(?! FUNCTION)",
    "no CASE statement": r"\bEND CASE\b",
    "no FOUND": r"\bFOUND\b",
    "columns of NEW and OLD are read in parentheses": r'(?<![(\w])(?:NEW|OLD)\.(?:"[^"]+"|\w+\b)(?! := )',
    "no LOCK TABLE": r"\bLOCK TABLES?\b",
    "no advisory locks": r"pg_advisory",
    "no DO blocks": r"\bDO \$",
    "triggers do not see hidden columns": r"NOT VISIBLE",
    "no CASCADE for triggers": r"\bCASCADE\b",
    "no collation C": r"COLLATE",
    "no ctid": r"\bctid\b",
}


@pytest.fixture
def adapter() -> Adapter:
    return for_profile(Profile(product="cockroachdb", version=(25, 2, 3), settings={"default_schema": "public"}))


def case_of(name: str) -> Case:
    return Case(lens=LENSES[name], types=TYPES)


def compiled(adapter: Adapter, case: Case) -> list[str]:
    """Every statement that an upgrade sends."""
    statements = [
        statement.sql
        for hold in (case.expand, case.contract, case.rollback)
        for statement in (*adapter.opening(hold, 0.25), *adapter.hold(hold, None), *adapter.closing(hold))
    ]
    statements += [statement.sql for statement in adapter.online(case.enforce, None)]
    fill = adapter.backfill(Backfill(sync=case.sync))
    probe = adapter.probe(Probe(sync=case.sync, not_null=tuple(case.lens.new)))
    statements += [fill.first_fill, fill.fill, fill.remaining, fill.estimate, fill.bound or "", fill.first_bound or ""]
    statements += [probe.unsynced, *dict(probe.differing).values(), *dict(probe.show).values(), *probe.nulls.values()]
    return statements


@pytest.mark.parametrize("name", LENSES)
def test_nothing_that_the_documentation_excludes_is_compiled(adapter: Adapter, name: str) -> None:
    for statement in compiled(adapter, case_of(name)):
        for limit, pattern in FORBIDDEN.items():
            assert not re.search(pattern, statement), f"{limit}: {statement}"


def test_the_limits_are_seen_where_they_are_broken() -> None:
    broken = {
        "no UPDATE OF": "CREATE TRIGGER t BEFORE UPDATE OF a ON u",
        "columns of NEW and OLD are read in parentheses": 'IF NEW."a" IS NULL THEN',
        "no %TYPE": "DECLARE x users.a%TYPE;",
        "no dynamic EXECUTE": "EXECUTE 'SELECT 1'",
        "no CASE statement": "CASE WHEN a THEN b := 1; END CASE;",
    }
    for limit, statement in broken.items():
        assert re.search(FORBIDDEN[limit], statement)
    assert not re.search(FORBIDDEN["columns of NEW and OLD are read in parentheses"], 'NEW."a" := (NEW)."b";')
    assert not re.search(FORBIDDEN["no dynamic EXECUTE"], "FOR EACH ROW EXECUTE FUNCTION f()")


@pytest.mark.parametrize("name", LENSES)
def test_each_schema_change_stands_alone(adapter: Adapter, name: str) -> None:
    case = case_of(name)
    for hold in (case.expand, case.contract, case.rollback):
        for statement in adapter.hold(hold, None):
            assert not re.search(r"^(BEGIN|COMMIT|START)", statement.sql)
            changes = re.findall(r"\b(?:ADD|DROP|ALTER) COLUMN\b", statement.sql)
            assert len(changes) <= 1, statement.sql
    assert adapter.transactional_ddl is False


def test_the_statements_of_a_rename(adapter: Adapter) -> None:
    case = Case(lens=RENAME)
    function = function_name(case.sync, "cockroachdb")
    assert [statement.sql.split(" AS $")[0].split(" FOR EACH")[0] for statement in adapter.hold(case.expand, None)] == [
        'ALTER TABLE "users" ADD COLUMN "display_name" VARCHAR(60)',
        f'ALTER TABLE "users" ADD COLUMN "{MARKER}" SMALLINT',
        f'CREATE FUNCTION "{function}"() RETURNS trigger LANGUAGE plpgsql',
        'CREATE TRIGGER "cf_users_u" BEFORE UPDATE ON "users"',
        'CREATE TRIGGER "cf_users_i" BEFORE INSERT ON "users"',
    ]
    found = Found(
        exists=True,
        columns={"id": False, "fullname": False, "display_name": True, MARKER: True},
        triggers=dict.fromkeys(("cf_users_u", "cf_users_i"), f"/* contraflow {case.sync.fingerprint} */"),
        details={"functions": frozenset({function, "cf_users_other"}), "defaults": frozenset()},
    )
    assert adapter.hold(case.expand, found) == []
    assert [statement.sql for statement in adapter.online(case.enforce, found)] == [
        'ALTER TABLE "users" ALTER COLUMN "display_name" SET NOT NULL'
    ]
    assert [statement.sql for statement in adapter.hold(case.contract, found)] == [
        'ALTER TABLE "users" ALTER COLUMN "fullname" DROP NOT NULL',
        'ALTER TABLE "users" ALTER COLUMN "display_name" SET NOT NULL',
        'DROP TRIGGER "cf_users_i" ON "users"',
        'DROP TRIGGER "cf_users_u" ON "users"',
        f'DROP FUNCTION "{function}"()',
        'ALTER TABLE "users" DROP COLUMN "fullname"',
        f'ALTER TABLE "users" DROP COLUMN "{MARKER}"',
    ]
    assert adapter.hold(case.rollback, found)[-1].sql == f'ALTER TABLE "users" DROP COLUMN "{MARKER}"'
    # Killed before the INSERT trigger: only that one is made, and its function stands.
    half = Found(
        exists=True,
        columns=found.columns,
        triggers={"cf_users_u": found.triggers["cf_users_u"]},
        details=found.details,
    )
    (left,) = adapter.hold(case.expand, half)
    assert left.sql.startswith('CREATE TRIGGER "cf_users_i"')


def test_the_functions_name_carries_the_fingerprint_within_the_limit() -> None:
    sync = Case(lens=RENAME, name="ü" * 25).sync
    name = function_name(sync, "cockroachdb")
    assert name.endswith(sync.fingerprint)
    assert len(name.encode()) <= 63
    assert function_name(sync, "postgresql") == sync.name
