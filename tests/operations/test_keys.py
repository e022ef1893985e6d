"""Primary keys that change: what refers to them, what stands on their tables, kills, refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddPrimaryKey,
    AddSurrogateKey,
    AddUnique,
    CreateIndex,
    CreateTable,
    DropColumn,
    DropPrimaryKey,
    Options,
    Problem,
    ProblemError,
    RenameTable,
    Runner,
    State,
    WidenColumn,
)
from contraflow.dialects.base import Statement
from contraflow.operations.base import Operation
from tests.operations import lives
from tests.operations.lives import LIVES, Killed, dying_after, exact, send, writing
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

MYSQL = ("mysql", "mariadb")
SWAP: Sequence[Operation] = (
    DropPrimaryKey(table="plans"),
    AddUnique(table="plans", name="uq_plans_code", columns=["code"]),
    AddPrimaryKey(table="plans", columns=["number"]),
)


def runner(
    database: Database, operations: Sequence[Operation], **options: object
) -> contextlib.AbstractContextManager[Runner]:
    upgrade = upgrade_of(*operations)
    return Runner(database.url, upgrade, **{"options": Options(lock_timeout=0.3), **options})  # type: ignore[arg-type]


def create(engine: sa.Engine) -> None:
    """Plans, known by their codes, and what refers to them: other tables, and they themselves."""
    metadata = sa.MetaData()
    code = sa.String(20)
    sa.Table(
        "plans",
        metadata,
        sa.Column("code", code, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("parent", code, sa.ForeignKey("plans.code", name="fk_plans_parent")),
        sa.Column("title", sa.String(60)),
        sa.Index("ix_plans_title", "title"),
    )
    sa.Table(
        "orders",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("plan", code, sa.ForeignKey("plans.code", name="fk_orders_plan", ondelete="CASCADE"), nullable=False),
    )
    metadata.create_all(engine)
    send(engine, ["INSERT INTO plans (code, number, title) VALUES ('a', 1, 'A'), ('b', 2, 'B')"])
    send(engine, ["UPDATE plans SET parent = 'a' WHERE code = 'b'", "INSERT INTO orders (id, plan) VALUES (1, 'b')"])


WRITES = (
    "INSERT INTO plans (code, number, parent, title) VALUES ('w', 9, 'a', 'W')",
    "INSERT INTO orders (id, plan) VALUES (9, 'w')",
    "UPDATE plans SET title = 'X' WHERE code = 'w'",
    "DELETE FROM plans WHERE code = 'w'",
)
REFUSED = (
    "INSERT INTO orders (id, plan) VALUES (8, 'nothing')",
    "INSERT INTO plans (code, number) VALUES ('a', 7)",
    "INSERT INTO plans (code, number) VALUES ('z', 1)",
    "UPDATE plans SET parent = 'nothing' WHERE code = 'b'",
)


def key_of(engine: sa.Engine) -> list[str]:
    return sa.inspect(engine).get_pk_constraint("plans")["constrained_columns"]


def rows(engine: sa.Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_what_refers_to_the_old_key_goes_on(database: Database) -> None:
    engine = database.engine
    create(engine)
    with runner(database, SWAP) as run:
        assert run.check() == []
        run.upgrade()
        with writing(engine, WRITES):
            run.contract()
    assert key_of(engine) == ["number"]
    for statement in REFUSED:
        with pytest.raises(sa.exc.IntegrityError):
            send(engine, [statement])
    for table, name in (("orders", "fk_orders_plan"), ("plans", "fk_plans_parent")):
        (key,) = sa.inspect(engine).get_foreign_keys(table)
        # SQLAlchemy finds no names in a text of SQLite's that ALTER TABLE has changed.
        assert key["name"] in (name, None)
        assert key["referred_columns"] == ["code"]
    if engine.dialect.name == "postgresql":
        assert rows(engine, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == [(0,)]
    send(engine, ["DELETE FROM plans WHERE code = 'b'"])
    assert rows(engine, "SELECT * FROM orders") == []


def test_contract_is_killed_before_each_statement(database: Database) -> None:
    engine = database.engine
    create(engine)
    with runner(database, SWAP) as run:
        run.upgrade()
    transactional = database.kind.startswith(("sqlite", "postgresql"))
    place, died = 0, True
    while died:
        # Where DDL commits by itself, what came before is done, and not seen again.
        left = iter(range(place if transactional else min(place, 1)))

        def die(statement: Statement, left: Iterator[int] = left) -> None:
            changes = statement.sql.startswith(("ALTER", "DROP", "CREATE", 'INSERT INTO "contraflow_rebuilt'))
            if changes and ("plans" in statement.sql or "orders" in statement.sql) and next(left, None) is None:
                raise Killed

        with runner(database, SWAP, before_statement=die) as run:
            try:
                run.contract()
                died = False
            except Killed:
                send(engine, WRITES)
                place += 1
    assert place
    with runner(database, SWAP) as run:
        assert run.status().state is State.CONTRACTED
    assert key_of(engine) == ["number"]
    send(engine, WRITES)


def test_rows_that_came_after_the_proof_are_shown_and_rollback_is_open(database: Database) -> None:
    engine = database.engine
    create(engine)
    start = sa.inspect(engine).get_indexes("plans")

    def interfere(statement: Statement) -> None:
        if "PRIMARY KEY" in statement.sql or "UNIQUE INDEX CONCURRENTLY" in statement.sql or "rebuilt" in statement.sql:
            with contextlib.suppress(sa.exc.DBAPIError):
                send(engine, ["INSERT INTO plans (code, number) VALUES ('late', 1)"])

    if engine.dialect.name == "sqlite":
        send(engine, ["INSERT INTO plans (code, number) VALUES ('late', 1)"])  # nobody writes beside its rebuild
    with runner(database, SWAP) as run:
        run.expand()
        run.migrate()
    with runner(database, SWAP, before_statement=interfere) as run, pytest.raises(ProblemError, match="CF014"):
        run.contract()
    with runner(database, SWAP) as run:
        run.rollback()
    assert key_of(engine) == ["code"]
    assert sa.inspect(engine).get_indexes("plans") == start
    send(engine, WRITES)


def test_a_rollback_after_a_contract_that_got_no_lock_is_exact(database: Database) -> None:
    life = next(life for life in LIVES if life.name == "a table without a primary key gets one")
    lives.create(database.engine, life.old)
    send(database.engine, life.seed)
    start = exact(database.engine)

    def give_up(statement: Statement) -> None:
        if "PRIMARY KEY" in statement.sql and "users" in statement.sql:
            raise ProblemError(Problem(code="CF006", what="no lock", instead="again"))

    with lives.runner(database, life, give_up) as run:
        run.run("verify")
        with pytest.raises(ProblemError, match="CF006"):
            run.contract()
    with lives.runner(database, life) as run:
        assert run.status().pending is None
        run.rollback()
    assert exact(database.engine) == start


@pytest.mark.only_on("sqlite")
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")
def test_a_rebuild_on_sqlite_keeps_what_stands_on_the_table(database: Database) -> None:
    engine = database.engine
    send(
        engine,
        [
            """CREATE TABLE plans (code INTEGER CONSTRAINT pk PRIMARY KEY AUTOINCREMENT, number INT NOT NULL, /* , */
            twice INT AS (number * 2), parent INT REFERENCES plans (code), CHECK (number <> 'PRIMARY KEY'))""",
            "CREATE TABLE log (line TEXT)",
            "CREATE TABLE orders (plan INT REFERENCES plans (code) ON DELETE CASCADE)",
            "CREATE UNIQUE INDEX ux_plans_twice ON plans (twice) WHERE number > 0",
            "CREATE INDEX ix_plans_sum ON plans (number + code)",
            "CREATE VIEW numbers AS SELECT number FROM plans",
            "CREATE TRIGGER first AFTER INSERT ON plans BEGIN INSERT INTO log VALUES ('first'); END",
            "CREATE TRIGGER second AFTER INSERT ON plans BEGIN INSERT INTO log VALUES ('second'); END",
            "CREATE TRIGGER other AFTER INSERT ON orders BEGIN UPDATE plans SET number = number WHERE code = 1; END",
            "INSERT INTO plans (number) VALUES (7), (8)",
            "INSERT INTO orders VALUES (1)",
            "DELETE FROM log",
        ],
    )
    others = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE '%contraflow%' AND name NOT LIKE"
    others += " 'sqlite%' AND name <> 'plans' ORDER BY type, name"
    before = rows(engine, others)
    # An application's own engine: dropping a table would delete the rows that refer to it.
    enforcing = sa.create_engine(database.url)
    sa.event.listen(enforcing, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys = ON"))
    operations = (
        DropPrimaryKey(table="plans"),
        AddUnique(table="plans", name="uq_plans_code", columns=["code"]),
        AddPrimaryKey(table="plans", columns=["number"]),
    )
    upgrade = upgrade_of(*operations)
    with Runner(enforcing, upgrade) as run:
        run.run("contract")
    enforcing.dispose()
    assert [row for row in rows(engine, others) if row[1] != "uq_plans_code"] == before
    assert rows(engine, "SELECT code, number, twice FROM plans") == [(1, 7, 14), (2, 8, 16)]
    assert rows(engine, "SELECT plan FROM orders") == [(1,)]
    send(engine, ["INSERT INTO plans (code, number) VALUES (3, 9)", "INSERT INTO orders VALUES (3)"])
    assert rows(engine, "SELECT line FROM log") == [("second",), ("first",)]
    for statement in (*REFUSED[:1], "INSERT INTO plans (code, number) VALUES (NULL, 10)"):
        with pytest.raises(sa.exc.IntegrityError):
            send(engine, [statement.replace("id, ", "").replace("8, ", "")])
    assert rows(engine, "PRAGMA integrity_check") == [("ok",)]


def test_a_key_of_new_columns(database: Database) -> None:
    engine = database.engine
    metadata = sa.MetaData()
    sa.Table("plans", metadata, sa.Column("title", sa.String(20)), sa.Column("old", sa.Integer)).create(engine)
    send(engine, ["INSERT INTO plans (title) VALUES ('a'), ('b')"])
    token = AddColumn(table="plans", column=sa.Column("token", sa.String(20), nullable=True))
    with runner(database, [token, AddPrimaryKey(table="plans", columns=["token"], name="plans_by_token")]) as run:
        run.expand()
        run.migrate()
        with pytest.raises(ProblemError, match="CF013"):
            run.verify()
        send(engine, ["UPDATE plans SET token = title"])
        run.verify()
        run.contract()
    assert key_of(engine) == ["token"]
    with pytest.raises(sa.exc.IntegrityError):
        send(engine, ["INSERT INTO plans (title, token) VALUES ('c', 'a')"])


def problems(database: Database, *operations: Operation) -> str:
    with runner(database, operations) as run:
        try:
            return "\n".join(map(str, run.check()))
        except ProblemError as error:
            return str(error)


def test_refusals(database: Database) -> None:
    engine = database.engine
    create(engine)
    drop, add = DropPrimaryKey(table="plans"), AddPrimaryKey(table="plans", columns=["number"])
    assert "CF116: plans has a primary key already, on code" in problems(database, add)
    assert "the foreign key fk_orders_plan of orders stands on it" in problems(database, drop, add)
    assert "CF101: table plans has no primary key" in problems(database, drop, drop)
    assert "CF101" in problems(database, drop, AddPrimaryKey(table="plans", columns=["nothing"]))
    copied = problems(database, DropPrimaryKey(table="orders"))
    assert ("copies=True" in copied) == (engine.dialect.name in MYSQL)
    late = problems(database, *SWAP, AddColumn(table="plans", column=sa.Column("x", sa.Integer)))
    assert late == ""
    gone = problems(database, *SWAP, DropColumn(table="plans", column="number", value=lambda _row: sa.literal(1)))
    assert "CF111: plans.number cannot be dropped: the primary key that this upgrade makes stands on it" in gone
    assert "gets another name" in problems(database, *SWAP, RenameTable(table="plans", new="offers"))
    wide = WidenColumn(table="plans", column="title", type=sa.String(61), replans=True)
    assert "has columns of a wider type" in problems(database, *SWAP, wide)
    named = AddPrimaryKey(table="plans", columns=["number"], name="ix_plans_title")
    assert "CF117" in problems(database, *SWAP[:2], named)
    for wrong in (["number", "number"], []):
        with pytest.raises(ProblemError, match="CF116"):
            AddPrimaryKey(table="plans", columns=wrong)
    with pytest.raises(ProblemError, match="CF116"):
        AddPrimaryKey(table="plans", columns=["number"], name="n" * 64)
    same = problems(database, drop, AddPrimaryKey(table="plans", columns=["code"]))
    assert same == ""


def test_a_new_table_is_created_with_its_key(database: Database) -> None:
    plans = sa.Table("plans", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("code", sa.String(20)))
    add = AddPrimaryKey(table="plans", columns=["id"])
    with runner(database, [CreateTable(definition=plans), add]) as run:
        run.upgrade()
        assert key_of(database.engine) == ["id"]
        with pytest.raises(sa.exc.IntegrityError):
            send(database.engine, ["INSERT INTO plans (id) VALUES (1)", "INSERT INTO plans (id) VALUES (1)"])
        run.contract()
    assert key_of(database.engine) == ["id"]


@pytest.mark.only_on("mariadb", "mysql")
def test_a_numbered_column_needs_a_key_on_mysql(database: Database) -> None:
    engine = database.engine
    send(engine, ["CREATE TABLE plans (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, code VARCHAR(9) NOT NULL)"])
    operations = (DropPrimaryKey(table="plans"), AddPrimaryKey(table="plans", columns=["code"]))
    send(engine, ["CREATE TABLE texts (id INT NOT NULL PRIMARY KEY, t VARCHAR(99) NOT NULL, FULLTEXT INDEX f (t))"])
    texts = (DropPrimaryKey(table="texts"), AddPrimaryKey(table="texts", columns=["t"]))
    assert "FULLTEXT" in problems(database, *texts)
    assert "CF205: plans.id cannot leave the primary key" in problems(database, *operations)
    index = CreateIndex(table="plans", name="ix_plans_id", columns=["id"])
    with runner(database, [*operations, index]) as run:
        run.run("contract")
    assert key_of(engine) == ["code"]


@pytest.mark.only_on("postgresql", "postgresql15")
def test_what_depends_on_a_key_on_postgresql(database: Database) -> None:
    engine = database.engine
    create(engine)
    send(engine, ["CREATE VIEW counted AS SELECT code, title, count(*) FROM plans GROUP BY code"])
    assert "view counted depends on it" in problems(database, *SWAP)
    send(engine, ["DROP VIEW counted", "CREATE TABLE logs (id INT PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE logs"])
    assert "the publication p replicates it" in problems(database, DropPrimaryKey(table="logs"))
    send(engine, ["ALTER TABLE logs REPLICA IDENTITY FULL"])
    assert problems(database, DropPrimaryKey(table="logs")) == ""
    send(
        engine,
        [
            "ALTER TABLE orders DROP CONSTRAINT fk_orders_plan",
            "ALTER TABLE orders ADD CONSTRAINT fk_orders_plan FOREIGN KEY (plan) REFERENCES plans (code) NOT VALID",
        ],
    )
    assert "CF111: the foreign key fk_orders_plan of orders is not valid" in problems(database, *SWAP)


def test_another_unique_constraint_keeps_its_name(database: Database) -> None:
    """It stands on the columns of the new key, and stays beside it unless the change drops it."""
    engine = database.engine
    create(engine)
    send(engine, ["CREATE UNIQUE INDEX ux_plans_number ON plans (number)"])
    with runner(database, SWAP) as run:
        run.run("contract")
    indexes = {index["name"] for index in sa.inspect(engine).get_indexes("plans")}
    assert {"ux_plans_number", "ix_plans_title"} <= indexes


NUMBERED = (
    AddSurrogateKey(
        table="plans", column=sa.Column("id", sa.BigInteger, comment="it's ours"), unique="uq_plans_code", copies=True
    ),
)


def kills(database: Database, verb: str, operations: Sequence[Operation]) -> int:
    """Run the verb, killed before each of its statements on the tables; how often it was."""
    transactional = database.kind.startswith(("sqlite", "postgresql"))
    place = 0
    while place < 100:
        die = dying_after(place if transactional else min(place, 1), "plans", "orders")
        with runner(database, operations, before_statement=die) as run:
            try:
                getattr(run, verb)()
            except Killed:
                place += 1
            else:
                return place
        send(database.engine, WRITES)
    raise AssertionError("it does not come forward")


@pytest.mark.parametrize("last", ["rollback", "contract"])
def test_a_numbered_key_survives_kills(database: Database, last: str) -> None:
    engine = database.engine
    create(engine)
    start = lives.exact(engine, "plans")
    for verb in ("expand", "migrate", last):
        # Where the rows are numbered at once, nothing is left to migrate.
        assert kills(database, verb, NUMBERED) or (database.kind, verb) == ("sqlite", "migrate")
    send(engine, WRITES)
    if last == "rollback":
        assert lives.exact(engine, "plans") == start
        return
    assert key_of(engine) == ["id"]
    (column,) = [column for column in sa.inspect(engine).get_columns("plans") if column["name"] == "id"]
    assert not column["nullable"]
    assert engine.dialect.name == "sqlite" or column["comment"] == "it's ours"
    for statement in REFUSED:
        if "'z'" not in statement:
            with pytest.raises(sa.exc.IntegrityError):
                send(engine, [statement])
    table = sa.Table("plans", sa.MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        number = connection.execute(table.insert().values(code="new", number=5)).inserted_primary_key[0]  # type: ignore[index]
        assert connection.execute(sa.select(table.c.code).where(table.c.id == number)).scalar_one() == "new"


def test_a_table_without_a_key_is_numbered(database: Database) -> None:
    engine = database.engine
    send(engine, ["CREATE TABLE plans (code VARCHAR(20), title VARCHAR(20))"])
    send(engine, [f"INSERT INTO plans (code) VALUES ('{place % 7}')" for place in range(30)])
    operation = AddSurrogateKey(
        table="plans", column=sa.Column("id", sa.Integer, sa.Identity(always=True)), copies=True
    )
    if engine.dialect.name in MYSQL:
        assert "CF205: the rows of plans cannot be numbered: it has no primary key" in problems(database, operation)
        return
    with runner(database, [operation], options=Options(lock_timeout=0.3, batch_size=7)) as run:
        run.upgrade()
        with writing(engine, ["INSERT INTO plans (code) VALUES ('w')", "DELETE FROM plans WHERE code = 'w'"]):
            run.contract()
    assert key_of(engine) == ["id"]
    assert rows(engine, "SELECT count(*), count(DISTINCT id) FROM plans") == [(30, 30)]
    if engine.dialect.name == "postgresql":
        assert sa.inspect(engine).get_columns("plans")[-1]["identity"]["always"]


@pytest.mark.only_on("postgresql", "postgresql15")
def test_whoever_may_insert_may_number(database: Database) -> None:
    engine = database.engine
    create(engine)
    role = f"r_{database.url.database}"
    send(engine, [f"CREATE ROLE {role}", f"GRANT INSERT (code, number), SELECT ON plans TO {role}"])
    try:
        with runner(database, NUMBERED) as run:
            for verb in ("expand", "migrate", "verify", "contract"):
                getattr(run, verb)()
                with engine.begin() as connection:
                    connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
                    connection.exec_driver_sql(f"INSERT INTO plans (code, number) VALUES ('{verb}', 1)")
    finally:
        send(engine, [f"DROP OWNED BY {role}", f"DROP ROLE {role}"])
    assert rows(engine, "SELECT count(DISTINCT id) FROM plans") == [(6,)]


def test_what_cannot_be_numbered(database: Database) -> None:
    engine = database.engine
    create(engine)
    (ours,) = NUMBERED
    number = sa.Column("id", sa.Integer)
    for wrong in (
        sa.Column("id", sa.String(9)),
        sa.Column("id", sa.Integer, server_default="1"),
        sa.Column("id", sa.Integer, sa.Identity(start=5)),
    ):
        with pytest.raises(ProblemError, match="CF116"):
            AddSurrogateKey(table="plans", column=wrong, unique="uq")
    with pytest.raises(ProblemError, match="CF116"):
        AddSurrogateKey(table="plans", column=number, unique="u" * 64)
    assert 'unique="..."' in problems(database, AddSurrogateKey(table="plans", column=number))
    other = AddColumn(table="plans", column=sa.Column("x", sa.Integer))
    assert "gets or loses other columns" in problems(database, ours, other)
    send(engine, ["CREATE TABLE keyless (code INT)"])
    assert "leave unique= out" in problems(database, AddSurrogateKey(table="keyless", column=number, unique="uq"))
    if engine.dialect.name in MYSQL:
        plain = AddSurrogateKey(table="plans", column=number, unique="uq_plans_code")
        assert "AddSurrogateKey(..., copies=True)" in problems(database, plain)
        send(engine, ["CREATE TABLE counted (no INT AUTO_INCREMENT PRIMARY KEY)"])
        again = AddSurrogateKey(table="counted", column=number, unique="uq_counted", copies=True)
        assert "CF205: counted.id cannot be numbered: no is" in problems(database, again)
    elif engine.dialect.name == "sqlite":
        send(engine, ["CREATE TABLE counted (no INTEGER PRIMARY KEY)"])
        again = AddSurrogateKey(table="counted", column=number, unique="uq_counted")
        assert "CF205: counted.id cannot be numbered: no is" in problems(database, again)
        send(engine, ["CREATE TABLE bare (no INT PRIMARY KEY) WITHOUT ROWID"])
        bare = AddSurrogateKey(table="bare", column=number, unique="uq_bare")
        assert "WITHOUT ROWID" in problems(database, bare)
        assert "WITHOUT ROWID" in problems(database, DropPrimaryKey(table="bare"))
