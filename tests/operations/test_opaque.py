"""Columns that only Python can compute from each other: an encrypted blob, through its whole life on every server."""

from __future__ import annotations

import base64
import itertools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    CreateIndex,
    Declared,
    Opaque,
    OpaqueColumns,
    OpaqueWriter,
    Options,
    ProblemError,
    RenameColumn,
    Runner,
    State,
)
from contraflow.dialects import Profile, for_profile
from contraflow.engine.report import Progress
from contraflow.installed import Installed
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from contraflow.steps import Hold
from tests.engine import service
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

TABLE = "credential"
NONCE = itertools.count(1)


def encrypt(row: Mapping[str, Any]) -> dict[str, Any]:
    """Another answer at each call, as a real cipher gives."""
    text = f"{next(NONCE)}:{row['secret']}"
    return {"sealed": base64.b64encode(text[::-1].encode()).decode(), "key_hash": "k1"}


def decrypt(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"secret": base64.b64decode(row["sealed"]).decode()[::-1].partition(":")[2]}


def operation(**arguments: Any) -> OpaqueColumns:
    lens = {"old": ["secret"], "new": ["sealed", "key_hash"], "forward": encrypt, "backward": decrypt, **arguments}
    columns = [sa.Column("sealed", sa.Text, nullable=False), sa.Column("key_hash", sa.String(64), nullable=False)]
    return OpaqueColumns(table=TABLE, columns=columns, lens=Opaque(**lens))


def make(database: Database, *, key: str = " PRIMARY KEY", rows: int = 9) -> None:
    with database.engine.begin() as connection:
        create = f"CREATE TABLE {TABLE} (id INTEGER NOT NULL{key}, secret VARCHAR(200) NOT NULL, note VARCHAR(20))"
        connection.exec_driver_sql(create)
        for number in range(1, rows + 1):
            service.run(connection, f"INSERT INTO {TABLE} (id, secret) VALUES (:n, :s)", n=number, s=f"it's {number}é")


def runner(
    database: Database, *operations: Operation, progress: Callable[[Progress], None] = lambda _progress: None
) -> Runner:
    options = Options(lock_timeout=0.3, batch_size=4, max_batch_size=4)
    return Runner(database.url, upgrade_of(*(operations or (operation(),))), options=options, progress=progress)


def send(database: Database, sql: str, **parameters: Any) -> None:
    with database.engine.begin() as connection:
        service.run(connection, sql, **parameters)


def rows(database: Database, columns: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(f"SELECT {columns} FROM {TABLE} ORDER BY id"))]


def secrets(database: Database) -> dict[int, str | None]:
    """What the new release reads; None for a row that is to be computed."""
    found = rows(database, "id, sealed")
    return {number: None if sealed is None else decrypt({"sealed": sealed})["secret"] for number, sealed in found}


def refused(call: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(ProblemError) as raised:
        call()
    return {problem.code: str(problem) for problem in raised.value.problems}


def columns(database: Database) -> list[Any]:
    found = sa.inspect(database.engine).get_columns(TABLE)
    return [(column["name"], str(column["type"]), column["nullable"]) for column in found]


def test_a_life(database: Database) -> None:
    make(database)
    start, seed = columns(database), rows(database, "id, secret, note")
    writer = OpaqueWriter(operation())
    with runner(database) as run:
        assert run.check() == []
        run.expand()
        send(database, f"INSERT INTO {TABLE} (id, secret) VALUES (10, 'ten')")
        send(database, f"DELETE FROM {TABLE} WHERE id = 10")
        run.rollback()
        assert (columns(database), rows(database, "id, secret, note")) == (start, seed)

        run.expand()
        assert run.status().rows_left == {TABLE: 9}
        run.migrate()
        run.verify()
        assert run.status().rows_left == {TABLE: 0}
        wanted = {number: f"it's {number}é" for number in range(1, 10)}
        assert secrets(database) == wanted

        # The old release goes on. Nobody reads what it made stale, and it is known.
        send(database, f"UPDATE {TABLE} SET secret = 'changed' WHERE id = 1")
        send(database, f"INSERT INTO {TABLE} (id, secret) VALUES (11, 'eleven')")
        send(database, f"UPDATE {TABLE} SET note = 'x', secret = secret WHERE id = 2")
        assert secrets(database) == {**wanted, 1: None, 11: None}
        assert run.status().rows_left == {TABLE: 2}
        with database.engine.begin() as connection:
            (row,) = writer.read(connection, {"id": 1}, ["id"])
            assert (row["id"], decrypt(row)["secret"]) == (1, "changed")

        # The new one writes both sides: the old one reads it at once.
        with database.engine.begin() as connection:
            writer.insert(connection, {"id": 20, **encrypt({"secret": "twenty"}), "note": "new"})
            assert writer.update(connection, {"id": 3}, encrypt({"secret": "three"})) == 1
            assert writer.update(connection, {"id": 3}, encrypt({"secret": "third"})) == 1
            assert writer.update(connection, {"id": 11}, encrypt({"secret": "11"})) == 1
            assert writer.update(connection, {"id": 4}, {"note": "noted"}) == 1
            assert writer.update(connection, {"id": 99}, {"note": "nobody"}) == 0
        wanted |= {1: "changed", 3: "third", 11: "11", 20: "twenty"}
        assert dict(rows(database, "id, secret")) == wanted
        assert secrets(database) == {**wanted, 1: None}
        found = refused(run.contract)
        assert "the new side of 1 row of credential is still to be computed" in found["CF012"]
        assert list(found) == ["CF012"]
        run.migrate()
        assert secrets(database) == wanted
        run.contract()
        assert run.status().state is State.CONTRACTED
    shape = {name: nullable for name, _, nullable in columns(database)}
    assert shape == {"id": False, "note": True, "sealed": False, "key_hash": False}
    with database.engine.begin() as connection:
        writer.insert(connection, {"id": 30, **encrypt({"secret": "thirty"})})
        assert writer.update(connection, {"id": 20}, encrypt({"secret": "later"})) == 1
        (row,) = writer.read(connection, {"id": 30})
        assert decrypt(row) == {"secret": "thirty"}
    assert secrets(database) == {**wanted, 20: "later", 30: "thirty"}
    if database.kind == "sqlite":
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_a_write_of_the_new_side_alone_is_refused(database: Database) -> None:
    """Nobody could tell the old release what it means."""
    make(database)
    with runner(database) as run:
        run.upgrade()
        before = rows(database, "*")
        for statement in (
            f"UPDATE {TABLE} SET sealed = 'x' WHERE id = 1",
            f"UPDATE {TABLE} SET sealed = NULL WHERE id = 1",
            f"INSERT INTO {TABLE} (id, secret, sealed, key_hash) VALUES (50, NULL, 'x', 'k')",
        ):
            with pytest.raises(sa.exc.DBAPIError):
                send(database, statement)
        assert rows(database, "*") == before
        # An application that writes both by itself is believed.
        both = encrypt({"secret": "both"})
        send(
            database,
            f"INSERT INTO {TABLE} (id, secret, sealed, key_hash) VALUES (51, 'both', :sealed, :key_hash)",
            **both,
        )
        both = encrypt({"secret": "again"})
        send(database, f"UPDATE {TABLE} SET secret = 'again', sealed = :sealed WHERE id = 51", sealed=both["sealed"])
        assert secrets(database)[51] == "again"
        run.contract()


def test_an_old_write_while_python_computes_is_not_lost(database: Database) -> None:
    make(database)
    meddled: list[object] = []

    def slowly(row: Mapping[str, Any]) -> dict[str, Any]:
        if row["secret"] == "it's 6é" and not meddled:
            meddled.append(row)
            send(database, f"UPDATE {TABLE} SET secret = 'in between' WHERE id = 6")
        return encrypt(row)

    with runner(database, operation(forward=slowly)) as run:
        run.expand()
        run.migrate()
        assert meddled
        assert secrets(database)[6] == "in between"
        run.contract()


def test_an_old_write_behind_the_last_look_is_not_lost(database: Database) -> None:
    """The historical migration lost it: its triggers let the write pass, and its contract dropped the column."""
    make(database)
    done: list[str] = []

    def told(progress: Progress) -> None:
        first = "contract" if database.kind == "sqlite" else "prove that no row"
        if progress.title.startswith(first) and not done:
            done.append(progress.title)
            send(database, f"UPDATE {TABLE} SET secret = 'late' WHERE id = 5")

    with runner(database, progress=told) as run:
        run.upgrade()
        assert "CF012" in refused(run.contract)
        assert done
        assert run.status().pending is None
        run.migrate()
        run.contract()
        assert secrets(database)[5] == "late"


def test_new_nodes_write_through_contract(database: Database) -> None:
    """None of their statements fails, and none is lost."""
    make(database)
    writer = OpaqueWriter(operation())
    done = threading.Event()
    errors: list[BaseException] = []
    wrote = {1: "", 100: ""}

    def write() -> None:
        try:
            with database.engine.begin() as connection:
                writer.insert(connection, {"id": 100, **encrypt({"secret": "0"})})
            for number in itertools.count(1):
                if done.is_set() and number > 5:
                    return
                with database.engine.begin() as connection:
                    for key in wrote:
                        assert writer.update(connection, {"id": key}, encrypt({"secret": f"{number}"})) == 1
                    (row,) = writer.read(connection, {"id": 1})
                    assert decrypt(row) == {"secret": f"{number}"}
                wrote.update(dict.fromkeys(wrote, f"{number}"))
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    with runner(database) as run:
        run.upgrade()
        thread = threading.Thread(target=write)
        thread.start()
        try:
            run.contract()
        finally:
            done.set()
            thread.join()
    assert errors == []
    found = secrets(database)
    assert {key: found[key] for key in wrote} == wrote


def test_a_lock_refuses_the_old_releases_writes(database: Database) -> None:
    make(database)
    locked = operation(lock=True)
    writer = OpaqueWriter(locked)
    with runner(database, locked) as run:
        run.expand()
        for statement in (
            f"UPDATE {TABLE} SET secret = 'x' WHERE id = 1",
            f"INSERT INTO {TABLE} (id, secret) VALUES (50, 'x')",
        ):
            with pytest.raises(sa.exc.DBAPIError, match="locked for the old release"):
                send(database, statement)
        send(database, f"UPDATE {TABLE} SET note = 'free', secret = secret WHERE id = 1")
        send(database, f"DELETE FROM {TABLE} WHERE id = 9")
        run.upgrade()
        with database.engine.begin() as connection:
            writer.update(connection, {"id": 1}, encrypt({"secret": "new"}))
        assert rows(database, "secret")[0] == ("new",)
        run.contract()


def test_a_table_without_a_key(database: Database) -> None:
    make(database, key="")
    send(database, f"INSERT INTO {TABLE} (id, secret) VALUES (1, 'it''s 2é')")
    with runner(database) as run:
        run.run("contract")
    found = [decrypt({"sealed": sealed})["secret"] for (sealed,) in rows(database, "sealed")]
    assert sorted(found) == sorted([*(f"it's {n}é" for n in range(1, 10)), "it's 2é"])


def test_what_cannot_be_computed_is_told_without_its_value(database: Database) -> None:
    make(database)

    def fails(row: Mapping[str, Any]) -> dict[str, Any]:
        raise ValueError(row["secret"])

    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"forward": fails}, "CF107", "forward raises ValueError"),
        ({"backward": fails}, "CF107", "backward raises"),
        ({"backward": lambda _row: {"secret": "no"}}, "CF108", "9 of its first"),
        ({"forward": lambda row: {**encrypt(row), "key_hash": None}}, "CF107", "key_hash: NULL"),
        ({"forward": lambda row: {**encrypt(row), "key_hash": "k" * 65}}, "CF107", "key_hash: a value"),
        ({"forward": lambda _row: {"sealed": "x"}}, "CF102", "gives sealed"),
    ]
    for arguments, code, words in cases:
        with runner(database, operation(**arguments)) as run:
            (problem,) = run.check()
        assert problem.code == code
        assert words in str(problem)
        assert "it's" not in str(problem)


def test_the_journal_alone_cannot_compute(database: Database) -> None:
    make(database)
    with runner(database) as run:
        run.expand()
    with Runner(database.url) as alone:
        assert alone.needs_declaration
        assert "CF004" in refused(alone.migrate)
    with runner(database) as run:
        planned = [one.statement.sql for one in run.plan().phases["migrate"]]
        assert any(sql.startswith("SELECT") for sql in planned)
        run.migrate()
    with Runner(database.url) as alone:
        alone.verify()
        alone.contract()


def test_cockroachdb_compiles() -> None:
    """The form that its triggers need: parentheses around the row."""
    table = sa.Table(TABLE, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("secret", sa.Text))
    (hold,) = plan(upgrade_of(operation()), {(None, TABLE): table}).expand
    assert isinstance(hold, Hold)
    adapter = for_profile(Profile(product="cockroachdb", version=(25, 4, 0)))
    sent = "\n".join(statement.sql for statement in adapter.hold(hold, None))
    assert 'IF (NEW)."cf_marker" IS NOT DISTINCT FROM (OLD)."cf_marker" THEN' in sent
    assert 'NEW."' not in re.sub(r'NEW\."\w+" :=', "", sent)


def test_what_is_declared_wrongly() -> None:
    table = sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("secret", sa.Text),
        sa.Column("n", sa.Text),
    )

    def planned(*operations: Operation) -> Installed:
        (installed,) = plan(upgrade_of(*operations), {(None, TABLE): table}).installed
        assert Installed.from_dict(installed.as_dict()) == installed
        return installed

    assert "another lens" in refused(lambda: planned(operation(), RenameColumn(table=TABLE, old="n", new="m")))["CF116"]
    assert planned(operation(), AddColumn(table=TABLE, column=sa.Column("plain", sa.Text))).opaque
    index = CreateIndex(table=TABLE, name="ux", columns=["key_hash"], unique=True)
    assert [found.late for found in planned(operation(), index).built] == [True]
    for wrong in list[dict[str, Any]]([{"new": []}, {"old": ["sealed"]}]):
        assert "CF116" in refused(lambda wrong=wrong: operation(**wrong))  # type: ignore[misc]
    lens = operation().lens
    assert "CF116" in refused(lambda: OpaqueColumns(table=TABLE, columns=[], lens=lens))
    other = Declared(revision="r", operations=(operation(lock=True),))
    assert other.fingerprint != Declared(revision="r", operations=(operation(),)).fingerprint
    with sa.create_engine("sqlite://", poolclass=sa.NullPool).connect() as connection:
        half = {"id": 1, "sealed": "x"}
        assert "CF102" in refused(lambda: OpaqueWriter(operation()).insert(connection, half))
