"""What happens to an index whose build fails, dies, or is taken back."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from contraflow import CreateIndex, Options, RenameColumn, Runner
from contraflow.dialects.base import Statement
from contraflow.operations.base import Operation
from contraflow.problems import ProblemError
from tests.operations.lives import LIVES, TABLE, Killed, Life, create, dying_after, exact, runner, send, shape
from tests.operations.test_lives import target
from tests.servers.shared import Database

PAIR = LIVES[1]
DETERMINED = next(life for life in LIVES if life.mend)


def begun(database: Database, life: Life, through: str) -> None:
    create(database.engine, life.old)
    send(database.engine, life.seed)
    with runner(database, life) as run:
        run.expand()
        if through != "expand":
            run.migrate()


def builds(statement: Statement) -> bool:
    return bool(re.match(r"CREATE (UNIQUE )?INDEX|ALTER TABLE \S+ ADD (UNIQUE )?INDEX", statement.sql))


def test_rows_alike_that_come_after_verification_are_shown_and_nothing_is_left(database: Database) -> None:
    begun(database, DETERMINED, "migrate")
    sent: list[Statement] = []

    def insert(statement: Statement) -> None:
        if builds(statement) and not sent:
            sent.append(statement)
            send(database.engine, ["INSERT INTO users (id, name, slug) VALUES (7, 'Ida', 'Ada')"])

    with runner(database, DETERMINED) as run:
        run.verify()
    before = exact(database.engine)
    with runner(database, DETERMINED, insert) as run, pytest.raises(ProblemError) as caught:
        run.contract()
    assert sent
    (problem,) = caught.value.problems
    assert problem.code == "CF014"
    assert "2 rows of users are alike under uq_users_slug on slug." in problem.what
    assert "slug='Ada', rows=2" in problem.what
    assert exact(database.engine) == before
    # Nothing keeps the new release from writing such rows, and the way back is open.
    send(database.engine, ["INSERT INTO users (id, name, slug) VALUES (8, 'Eda', 'Ada')"])
    with runner(database, DETERMINED) as run:
        assert run.status().pending is None
        run.rollback()
    assert shape(database.engine)["indexes"] == set()


@pytest.mark.parametrize("verb", ["contract", "rollback"])
def test_contract_and_rollback_go_on_after_a_kill_before_each_statement(database: Database, verb: str) -> None:
    create(database.engine, PAIR.old)
    start = exact(database.engine)
    send(database.engine, PAIR.seed)
    with runner(database, PAIR) as run:
        run.run("verify")
    place, killed = 0, True
    while killed:
        # Where DDL commits by itself, what came before is done, and not seen again.
        transactional = database.kind.startswith(("sqlite", "postgresql"))
        with runner(database, PAIR, dying_after(place if transactional else min(place, 1), TABLE)) as run:
            try:
                getattr(run, verb)()
                killed = False
            except Killed:
                place += 1
        assert place < 100, "it does not come forward"
        send(database.engine, [f"UPDATE users SET badge = {100 + place} WHERE id = 2"])
    assert place > 1
    if verb == "contract":
        assert shape(database.engine) == target(database, PAIR)
    else:
        assert exact(database.engine) == start


@pytest.mark.only_on("postgresql", "postgresql15")
def test_an_index_whose_builder_died_is_built_again(database: Database) -> None:
    life = LIVES[0]
    begun(database, life, "expand")
    errors: list[BaseException] = []

    def build() -> None:
        try:
            with runner(database, life) as run:
                run.migrate()
        except ProblemError as error:
            errors.append(error)

    with database.engine.connect() as other:
        # CREATE INDEX CONCURRENTLY waits for a transaction that has written to the table; half of it stands by then.
        other.exec_driver_sql("INSERT INTO users (id, mail) VALUES (50, 'x')")
        thread = threading.Thread(target=build)
        thread.start()
        deadline = time.monotonic() + 300
        while exact(database.engine)["indexes"].get("uq_users_email") != "invalid":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with database.engine.connect() as third:
            third.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'CREATE UNIQUE INDEX%%'"
            )
        thread.join()
        other.rollback()
    assert errors
    assert exact(database.engine)["indexes"]["uq_users_email"] == "invalid"
    with runner(database, life) as run:
        run.migrate()
        assert exact(database.engine)["indexes"]["uq_users_email"] == "constraint"
        run.verify()
        run.contract()
    assert shape(database.engine) == target(database, life)


@pytest.mark.only_on("postgresql", "postgresql15")
def test_what_a_dead_builder_left_is_rolled_back(database: Database) -> None:
    life = LIVES[0]
    create(database.engine, life.old)
    start = exact(database.engine)
    send(database.engine, life.seed)
    with runner(database, life) as run:
        run.expand()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("UPDATE users SET email = NULL")
        send(database.engine, ["INSERT INTO users (id, mail) VALUES (3, 'c')"])
        connection.exec_driver_sql("ALTER TABLE users DISABLE TRIGGER USER")
        connection.exec_driver_sql("UPDATE users SET email = 'same'")
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY uq_users_email ON users (email)")
        connection.exec_driver_sql("ALTER TABLE users ENABLE TRIGGER USER")
    assert exact(database.engine)["indexes"]["uq_users_email"] == "invalid"
    with runner(database, life) as run:
        run.rollback()
    assert exact(database.engine) == start


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_a_build_that_waits_gives_up_after_its_patience_and_goes_on_later(database: Database) -> None:
    life = LIVES[0]
    begun(database, life, "expand")
    options = Options(lock_timeout=0.1, lock_patience=0.5)
    with database.engine.connect() as other:
        other.exec_driver_sql("INSERT INTO users (id, mail) VALUES (50, 'x')")
        with (
            Runner(database.url, life.upgrade, options=options) as run,
            pytest.raises(ProblemError, match="CF006: the lock to build uq_users_email"),
        ):
            run.migrate()
    with runner(database, life) as run:
        run.migrate()
        assert run.status().pending is None


def test_a_foreign_key_on_a_constraint_that_is_to_go_is_a_problem(database: Database) -> None:
    life = LIVES[0]
    create(database.engine, life.old)
    metadata = sa.MetaData()
    sa.Table(TABLE, metadata, autoload_with=database.engine)
    sa.Table("posts", metadata, sa.Column("author", sa.String(60), sa.ForeignKey("users.mail", name="fk_author")))
    metadata.create_all(database.engine)
    with runner(database, life) as run:
        codes = [(problem.code, "foreign key" in problem.what and "posts" in problem.what) for problem in run.check()]
        assert ("CF111", True) in codes
        with pytest.raises(ProblemError, match="CF111"):
            run.expand()


@pytest.mark.only_on("mariadb", "mysql")
def test_an_index_under_a_foreign_key_of_the_table_is_kept(database: Database) -> None:
    life = LIVES[3]
    send(database.engine, ["CREATE TABLE cities (name VARCHAR(60) PRIMARY KEY)"])
    create(database.engine, life.old)
    send(database.engine, ["ALTER TABLE users ADD CONSTRAINT fk_city FOREIGN KEY (city) REFERENCES cities (name)"])
    with runner(database, life) as run:
        assert [problem.code for problem in run.check()] == ["CF111"]


def test_the_plan_says_what_a_build_costs(database: Database) -> None:
    create(database.engine, LIVES[0].old)
    with runner(database, LIVES[0]) as run:
        plan = run.plan()
    (build,) = (item for item in plan.phases["migrate"] if builds(item.statement))
    assert build.online
    expected = {"sqlite": "for as long as reading", "mariadb": "LOCK=NONE", "mysql": "LOCK=NONE"}
    assert expected.get(database.kind, "writers go on") in build.statement.lock


def test_an_index_that_somebody_dropped_is_built_again_by_contract(database: Database) -> None:
    life = LIVES[3]
    begun(database, life, "migrate")
    on = " ON users" if database.kind in ("mariadb", "mysql") else ""
    send(database.engine, [f"DROP INDEX ix_users_street{on}"])
    with runner(database, life) as run:
        run.verify()
        run.contract()
    assert shape(database.engine) == target(database, life)


@pytest.mark.only_on("mariadb", "mysql")
def test_what_cannot_be_done_in_place_is_known_beforehand(database: Database) -> None:
    life = LIVES[0]
    send(database.engine, ["CREATE TABLE users (id INTEGER, mail VARCHAR(60) NOT NULL UNIQUE, note TEXT)"])
    with runner(database, life) as run:
        assert ["no primary key" in problem.what for problem in run.check()] == [True]
    note: list[Operation] = [
        RenameColumn(table=TABLE, old="note", new="text"),
        CreateIndex(table=TABLE, name="ix", columns=["text"]),
    ]
    with runner(database, replace(life, operations=note)) as run:
        assert [problem.what for problem in run.check()] == ["ix cannot stand on users.text, which is TEXT."]


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_partitioned_table_is_refused(database: Database) -> None:
    send(database.engine, ["CREATE TABLE users (id integer, mail text) PARTITION BY RANGE (id)"])
    index = [CreateIndex(table=TABLE, name="ix", columns=["mail"])]
    with runner(database, replace(LIVES[0], operations=index)) as run:
        assert [(problem.code, "is partitioned" in problem.what) for problem in run.check()] == [("CF205", True)]
