"""A numbered key is replaced by a UUID, with the foreign keys that refer to it."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import DropColumn, Fault, KeyReference, Options, ReplaceKey, Runner, classify
from contraflow.dialects.base import Statement
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from contraflow.problems import ProblemError
from tests.keystone.stage import Stage, staged
from tests.operations.lives import Killed, exact
from tests.servers.shared import Database
from tests.upgrades import upgrade_of


def shop(*, new: bool) -> sa.MetaData:
    """Users, their orders, each perhaps with an agent, and the orders' items."""
    metadata = sa.MetaData()

    def key() -> sa.Column[Any]:
        return sa.Column("uid", sa.Uuid(), primary_key=True) if new else sa.Column("id", sa.Integer, primary_key=True)

    def refers(to: str, name: str, *, nullable: bool, ondelete: str | None) -> list[sa.schema.SchemaItem]:
        column = f"{name}_uid" if new else f"{name}_id"
        target = f"{to}.uid" if new else f"{to}.id"
        return [
            sa.Column(column, sa.Uuid() if new else sa.Integer, nullable=nullable),
            sa.Index(f"ix_{column}", column),
            sa.ForeignKeyConstraint([column], [target], name=f"fk_{column}", ondelete=ondelete),
        ]

    sa.Table("users", metadata, key(), sa.Column("name", sa.String(40), nullable=False))
    sa.Table(
        "orders",
        metadata,
        key(),
        sa.Column("what", sa.String(40)),
        *refers("users", "user", nullable=False, ondelete="CASCADE"),
        *refers("users", "agent", nullable=True, ondelete="SET NULL"),
    )
    sa.Table(
        "items",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        *refers("orders", "order", nullable=False, ondelete=None),
    )
    return metadata


def reference(table: str, name: str, **more: Any) -> KeyReference:
    return KeyReference(
        table=table, old=f"{name}_id", new=f"{name}_uid", name=f"fk_{name}_uid", index=f"ix_{name}_uid", **more
    )


def replace_key(table: str, *references: KeyReference, **more: Any) -> ReplaceKey:
    return ReplaceKey(
        **{"table": table, "old": "id", "column": sa.Column("uid", sa.Uuid()), **more}, references=references
    )


OLD, NEW = shop(new=False), shop(new=True)
USERS = replace_key("users", reference("orders", "user"), reference("orders", "agent"))
ORDERS = replace_key("orders", reference("items", "order"))
OLD_USERS, OLD_ORDERS, OLD_ITEMS = (OLD.tables[name] for name in ("users", "orders", "items"))
NEW_USERS, NEW_ORDERS, NEW_ITEMS = (NEW.tables[name] for name in ("users", "orders", "items"))
OLD_QUERY = (
    sa.select(OLD_ORDERS.c.what, OLD_USERS.c.name, OLD_ORDERS.c.agent_id)
    .join(OLD_USERS, OLD_USERS.c.id == OLD_ORDERS.c.user_id)
    .order_by(OLD_ORDERS.c.what)
)
NEW_QUERY = (
    sa.select(NEW_ORDERS.c.what, NEW_USERS.c.name, NEW_ORDERS.c.agent_uid)
    .join(NEW_USERS, NEW_USERS.c.uid == NEW_ORDERS.c.user_uid)
    .order_by(NEW_ORDERS.c.what)
)


def filled(stage: Stage) -> None:
    """What the old release had: two users, and two orders, one of them with an agent and an item."""
    stage.send(
        OLD_USERS.insert().values(name="ada"),
        OLD_USERS.insert().values(name="bob"),
        OLD_ORDERS.insert().values(what="a", user_id=1, agent_id=2),
        OLD_ORDERS.insert().values(what="b", user_id=2),
        OLD_ITEMS.insert().values(id=1, order_id=1),
    )


def test_both_releases_refer_in_their_own_way(database: Database) -> None:
    with staged(database, OLD, ORDERS, USERS) as stage:
        filled(stage)
        stage.there_and_back("users", "orders", "items")
        stage.run.expand()
        stage.send(
            OLD_ORDERS.insert().values(what="c", user_id=1, agent_id=1),
            OLD_ITEMS.insert().values(id=2, order_id=3),
            OLD_ORDERS.update().where(OLD_ORDERS.c.what == "b").values(agent_id=2),
        )
        stage.run.upgrade()
        users = dict(stage.read(sa.select(NEW_USERS.c.name, NEW_USERS.c.uid)))
        assert {uid.version for uid in users.values()} == {1 if database.kind == "mariadb" else 4}
        eve, order = uuid.uuid4(), uuid.uuid4()
        stage.send(
            NEW_USERS.insert().values(uid=eve, name="eve"),
            NEW_ORDERS.insert().values(uid=order, what="d", user_uid=eve, agent_uid=users["ada"]),
            NEW_ITEMS.insert().values(id=3, order_uid=order),
            OLD_USERS.insert().values(name="kim"),
            NEW_ORDERS.update().where(NEW_ORDERS.c.what == "a").values(agent_uid=eve),
            NEW_ORDERS.update().where(NEW_ORDERS.c.what == "b").values(agent_uid=None),
            OLD_ORDERS.update().where(OLD_ORDERS.c.what == "c").values(user_id=2),
        )
        ids = dict(stage.read(sa.select(OLD_USERS.c.name, OLD_USERS.c.id)))
        assert len(set(ids.values())) == 4
        assert stage.read(OLD_QUERY) == [
            ("a", "ada", ids["eve"]),
            ("b", "bob", None),
            ("c", "bob", ids["ada"]),
            ("d", "eve", ids["ada"]),
        ]
        assert stage.read(NEW_QUERY) == [
            ("a", "ada", eve),
            ("b", "bob", None),
            ("c", "bob", users["ada"]),
            ("d", "eve", users["ada"]),
        ]
        orders = dict(stage.read(sa.select(NEW_ORDERS.c.what, NEW_ORDERS.c.uid)))
        assert stage.read(sa.select(NEW_ITEMS.c.id, NEW_ITEMS.c.order_uid).order_by(NEW_ITEMS.c.id)) == [
            (1, orders["a"]),
            (2, orders["c"]),
            (3, order),
        ]
        # Foreign keys of both releases: what neither may write, and what becomes of rows that refer.
        for refused in (
            NEW_ORDERS.insert().values(uid=uuid.uuid4(), what="x", user_uid=uuid.uuid4()),
            OLD_ORDERS.insert().values(what="x", user_id=99),
            NEW_ORDERS.delete().where(NEW_ORDERS.c.what == "a"),
            OLD_USERS.delete().where(OLD_USERS.c.name == "ada"),
        ):
            with pytest.raises(sa.exc.DBAPIError) as refusal:
                stage.send(refused)
            # What the new release refers to in vain leaves the old column NULL: on SQLite a trigger says so.
            assert classify(refusal.value) in (Fault.FOREIGN_KEY, Fault.NOT_NULL, Fault.RAISED)
        stage.send(NEW_ITEMS.delete().where(NEW_ITEMS.c.id == 3), NEW_USERS.delete().where(NEW_USERS.c.name == "eve"))
        assert stage.read(OLD_QUERY) == [("a", "ada", None), ("b", "bob", None), ("c", "bob", ids["ada"])]
        assert stage.read(NEW_QUERY) == [("a", "ada", None), ("b", "bob", None), ("c", "bob", users["ada"])]
        stage.run.verify()
        stage.contract(NEW)
        assert stage.read(NEW_QUERY) == [("a", "ada", None), ("b", "bob", None), ("c", "bob", users["ada"])]
        stage.send(
            NEW_USERS.insert().values(uid=eve, name="eve"),
            NEW_ORDERS.insert().values(uid=order, what="d", user_uid=eve, agent_uid=eve),
            NEW_USERS.delete().where(NEW_USERS.c.uid == eve),
        )
        assert len(stage.read(NEW_QUERY)) == 3


def test_an_agent_goes_before_the_new_foreign_key_stands(database: Database) -> None:
    """On MySQL and MariaDB a foreign key that sets NULL fires no triggers."""
    with staged(database, OLD, ORDERS, USERS) as stage:
        filled(stage)
        stage.run.expand()
        stage.send(
            OLD_USERS.insert().values(name="kim"),
            OLD_ORDERS.update().where(OLD_ORDERS.c.what == "b").values(agent_id=3),
        )
        ((number, uid),) = _agents(stage)
        assert number == 3
        assert uid is not None
        stage.send(OLD_USERS.delete().where(OLD_USERS.c.name == "kim"))
        assert _agents(stage) == [(None, None)]
        stage.run.upgrade()
        stage.contract(NEW)


def _agents(stage: Stage) -> list[tuple[Any, ...]]:
    """The agent of order b, as each release knows it."""
    with stage.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT agent_id, agent_uid FROM orders WHERE what = 'b'")
        return [tuple(row) for row in found]


@pytest.mark.only_on("postgresql", "postgresql15", "mysql", "mariadb")
@pytest.mark.parametrize("filled_first", [True, False], ids=["filled first", "referred to first"])
def test_a_row_comes_while_another_transaction_fills_the_key_that_it_refers_to(
    database: Database, *, filled_first: bool
) -> None:
    """Whichever is first, the other one waits for it: no row is left without the new key."""
    fills = OLD_USERS.update().where(OLD_USERS.c.name == "ada").values(name="eva")  # a row from before the upgrade
    refers = OLD_ORDERS.insert().values(what="c", user_id=1)
    first, second = (fills, refers) if filled_first else (refers, fills)
    with staged(database, OLD, ORDERS, USERS) as stage:
        filled(stage)
        stage.run.expand()
        later = threading.Thread(target=stage.send, args=[second])
        with stage.engine.begin() as connection:
            connection.execute(first)
            later.start()
            later.join(0.5)
            assert later.is_alive()
        later.join()
        ((uid,),) = stage.read(sa.select(NEW_USERS.c.uid).where(NEW_USERS.c.name == "eva"))
        assert uid is not None
        assert stage.read(sa.select(NEW_ORDERS.c.user_uid).where(NEW_ORDERS.c.what == "c")) == [(uid,)]


def _staff(*, new: bool) -> sa.MetaData:
    metadata = sa.MetaData()
    kind: Any = sa.Uuid() if new else sa.Integer
    key, boss = ("uid", "boss_uid") if new else ("id", "boss_id")
    sa.Table(
        "staff",
        metadata,
        sa.Column(key, kind, primary_key=True),
        sa.Column("name", sa.String(40)),
        sa.Column(boss, kind, sa.ForeignKey(f"staff.{key}", name=f"fk_{boss}", ondelete="SET NULL")),
        sa.Index(f"ix_{boss}", boss),
    )
    return metadata


@pytest.mark.only_on("sqlite", "postgresql", "postgresql15")
def test_a_table_that_refers_to_itself(database: Database) -> None:
    before, after = _staff(new=False), _staff(new=True)
    old, new = before.tables["staff"], after.tables["staff"]
    with staged(database, before, replace_key("staff", reference("staff", "boss"))) as stage:
        with stage.engine.begin() as connection:
            connection.execute(old.insert(), [{"name": "ada"}, {"name": "bob"}, {"name": "eve"}])
        stage.send(
            old.update().where(old.c.name == "ada").values(boss_id=1),
            old.update().where(old.c.name == "bob").values(boss_id=3),
        )
        stage.there_and_back("staff")
        stage.run.expand()
        stage.send(
            old.insert().values(name="kim", boss_id=2),
            old.insert().values([{"id": 70, "name": "own", "boss_id": 70}, {"id": 69, "name": "sub", "boss_id": 70}]),
        )
        stage.run.upgrade()
        one, other = uuid.uuid4(), uuid.uuid4()
        stage.send(new.insert().values(uid=one, name="new", boss_uid=one))
        known = dict(stage.read(sa.select(new.c.name, new.c.uid)))
        stage.send(
            new.insert().values(uid=other, name="newer", boss_uid=one),
            new.update().where(new.c.name == "eve").values(boss_uid=known["bob"]),
            old.insert().values(id=700, name="old", boss_id=700),
        )
        stage.run.verify()
        bosses = {
            "ada": "ada",
            "bob": "eve",
            "eve": "bob",
            "kim": "bob",
            "own": "own",
            "sub": "own",
            "new": "new",
            "newer": "new",
        }
        boss, uid_boss = old.alias(), new.alias()
        by_number = sa.select(old.c.name, boss.c.name).join(boss, boss.c.id == old.c.boss_id)
        by_uid = sa.select(new.c.name, uid_boss.c.name).join(uid_boss, uid_boss.c.uid == new.c.boss_uid)
        assert dict(stage.read(by_number)) == dict(stage.read(by_uid)) == {**bosses, "old": "old"}
        stage.send(new.delete().where(new.c.name == "bob"), old.delete().where(old.c.name == "new"))
        left = {name: boss for name, boss in {**bosses, "old": "old"}.items() if not {name, boss} & {"bob", "new"}}
        assert dict(stage.read(by_number)) == dict(stage.read(by_uid)) == left
        stage.contract(after)
        assert dict(stage.read(by_uid)) == left


@pytest.mark.only_on("mysql", "mariadb")
def test_a_table_that_refers_to_itself_is_refused_where_no_trigger_may_write_it(database: Database) -> None:
    with staged(database, _staff(new=False), replace_key("staff", reference("staff", "boss"))) as stage:
        found = [problem for problem in stage.run.check() if "refers to staff itself" in problem.what]
        assert [problem.code for problem in found] == ["CF205"]


class Deaths:
    """A kill before each statement that changes something but the journal, the first time that it comes."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, statement: Statement) -> None:
        changes = statement.sql.startswith(("ALTER", "CREATE", "DROP", "UPDATE")) and "contraflow_" not in statement.sql
        if changes and statement.sql not in self.seen:
            self.seen.add(statement.sql)
            raise Killed


def _told(stage: Stage) -> list[dict[str, Any]]:
    """Everything that the server tells about the old release's tables, but how far it has counted."""
    found = [exact(stage.engine, table) for table in OLD.tables]
    for one in found:
        if text := one["details"].get("create"):
            one["details"]["create"] = re.sub(r" AUTO_INCREMENT=\d+", "", text)
    return found


def test_a_kill_before_any_statement_harms_nobody(database: Database) -> None:
    """Both releases write after each kill, and the phase goes on where it stood."""
    number = iter(range(100, 10_000))

    def old_writes(stage: Stage) -> None:
        one = next(number)
        stage.send(
            OLD_ORDERS.insert().values(id=one, what=f"old {one}", user_id=1, agent_id=2),
            OLD_ITEMS.insert().values(id=one, order_id=one),
            OLD_ORDERS.update().where(OLD_ORDERS.c.id == one).values(user_id=2),
            OLD_USERS.insert().values(id=one, name="old"),
            OLD_USERS.delete().where(OLD_USERS.c.id == one),
        )

    def new_writes(stage: Stage) -> None:
        user, order, one = uuid.uuid4(), uuid.uuid4(), next(number)
        stage.send(
            NEW_USERS.insert().values(uid=user, name="new"),
            NEW_ORDERS.insert().values(uid=order, what=f"new {one}", user_uid=user, agent_uid=user),
            NEW_ITEMS.insert().values(id=one, order_uid=order),
        )

    deaths = Deaths()
    upgrade = upgrade_of(ORDERS, USERS, old="r0")
    with staged(database, OLD, ORDERS, USERS) as stage:
        filled(stage)
        before = _told(stage)

        def carry(phase: str, *writes: Callable[[Stage], None]) -> None:
            killed = True
            while killed:
                with Runner(database.url, upgrade, options=Options(lock_timeout=0.3), before_statement=deaths) as run:
                    try:
                        getattr(run, phase)()
                        killed = False
                    except Killed:
                        pass
                for write in writes:
                    write(stage)

        carry("expand", old_writes)
        carry("migrate", old_writes)
        carry("rollback", old_writes)
        assert _told(stage) == before
        stage.run.upgrade()
        new_writes(stage)
        stage.run.verify()
        carry("contract", new_writes)
        stage.contract(NEW)
        assert stage.read(sa.select(sa.func.count()).where(NEW_ORDERS.c.user_uid.is_(None))) == [(0,)]


def _plan(*operations: Operation, tables: sa.MetaData = OLD) -> None:
    upgrade = upgrade_of(*operations)
    plan(upgrade, {(None, name): table for name, table in tables.tables.items()})


def _tables(*columns: sa.schema.SchemaItem, key: Sequence[sa.Column[Any]] = ()) -> sa.MetaData:
    """Users, and boxes that refer to them by ``user_id``, which is among the columns."""
    metadata = sa.MetaData()
    sa.Table("users", metadata, *(key or [sa.Column("id", sa.Integer, primary_key=True)]))
    sa.Table("boxes", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)
    return metadata


def _box(**more: Any) -> list[sa.schema.SchemaItem]:
    return [sa.Column("user_id", sa.Integer, index=True), sa.ForeignKeyConstraint(["user_id"], ["users.id"], **more)]


def _refusals() -> Iterator[Any]:
    boxes = replace_key("users", reference("boxes", "user"))
    numbers = [sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)]
    two = [sa.Column(name, sa.Integer, primary_key=True) for name in ("id", "realm")]
    cases: list[tuple[str, list[Operation], sa.MetaData, str, str]] = [
        ("a key of two columns", [boxes], _tables(*_box(), key=two), "CF116", "is on id, realm, not on id alone"),
        ("numbers of the application", [boxes], _tables(*_box(), key=numbers), "CF116", "does not number users.id"),
        ("no foreign key", [boxes], _tables(sa.Column("user_id", sa.Integer)), "CF101", "no foreign key that refers"),
        ("on delete set default", [boxes], _tables(*_box(ondelete="SET DEFAULT")), "CF116", "writes user_id by itself"),
        ("a deferrable foreign key", [boxes], _tables(*_box(deferrable=True)), "CF116", "is deferrable"),
        ("on update set null", [boxes], _tables(*_box(onupdate="SET NULL")), "CF116", "writes user_id by itself"),
        (
            "no index",
            [boxes],
            _tables(sa.Column("user_id", sa.Integer), sa.ForeignKeyConstraint(["user_id"], ["users.id"])),
            "CF116",
            "no index begins with boxes.user_id",
        ),
        (
            "a column that goes too",
            [DropColumn(table="boxes", column="user_id"), boxes],
            _tables(*_box()),
            "CF101",
            "no column user_id",
        ),
    ]
    for name, operations, tables, code, text in cases:
        yield pytest.param(operations, tables, code, text, id=name)
    selfish = sa.MetaData()
    sa.Table(
        "users",
        selfish,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("boss_id", sa.Integer, sa.ForeignKey("users.id"), index=True, nullable=False),
    )
    yield pytest.param(
        [replace_key("users", reference("users", "boss"))], selfish, "CF116", "refers to users itself", id="itself"
    )
    circle = sa.MetaData()
    for name, to in (("a", "b"), ("b", "c"), ("c", "a")):
        sa.Table(
            name,
            circle,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column(f"{to}_id", sa.Integer, sa.ForeignKey(f"{to}.id"), index=True),
        )
    keys: list[Operation] = [replace_key(to, reference(name, to)) for name, to in (("a", "b"), ("b", "c"), ("c", "a"))]
    yield pytest.param(keys, circle, "CF116", "the tables a, b, c refer to each other", id="a circle")


@pytest.mark.parametrize(("operations", "tables", "code", "text"), list(_refusals()))
def test_what_is_refused_when_it_is_planned(
    operations: list[Operation], tables: sa.MetaData, code: str, text: str
) -> None:
    with pytest.raises(ProblemError) as refusal:
        _plan(*operations, tables=tables)
    assert code in {problem.code for problem in refusal.value.problems}
    assert text in str(refusal.value)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"column": sa.Column("uid", sa.Integer)}, "holds no UUID"),
        ({"column": sa.Column("uid", sa.String(20))}, "holds no UUID"),
        ({"column": sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"))}, "has a default"),
        ({"name": "n" * 64}, "longer than 63 bytes"),
    ],
)
def test_what_is_refused_when_it_is_declared(more: dict[str, Any], text: str) -> None:
    with pytest.raises(ProblemError, match=text):
        replace_key("users", **more)


def test_a_foreign_key_that_is_left_out_is_named(database: Database) -> None:
    with staged(database, OLD, replace_key("users", reference("orders", "user"))) as stage:
        (problem,) = stage.run.check()
        assert problem.code == "CF111"
        assert "fk_agent_id of orders" in problem.what


@pytest.mark.only_on("sqlite")
def test_a_number_that_the_server_does_not_give_is_refused_on_sqlite(database: Database) -> None:
    """There a key that is not of the type INTEGER is no row number."""
    tables = sa.MetaData()
    sa.Table("users", tables, sa.Column("id", sa.BigInteger, primary_key=True))
    with staged(database, tables, replace_key("users")) as stage:
        (problem,) = stage.run.check()
        assert problem.code == "CF205"
        assert "users.id is not numbered by the server" in problem.what


@pytest.mark.only_on("mysql", "mariadb")
def test_tables_of_two_collations_are_refused_where_they_cannot_be_compared(database: Database) -> None:
    with staged(database, OLD, ORDERS, USERS) as stage:
        with stage.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE items COLLATE latin1_bin")
        if database.kind == "mariadb":  # its own type has none
            assert stage.run.check() == []
            return
        (problem,) = stage.run.check()
        assert problem.code == "CF205"
        assert "new columns of items get the collation latin1_bin" in problem.what


def test_rows_that_refer_to_nothing_are_told(database: Database) -> None:
    """Nothing but a foreign key that was not looked at can let them be."""
    with staged(database, OLD, ORDERS, USERS) as stage:
        filled(stage)
        off = {"sqlite": "PRAGMA foreign_keys = OFF", "postgresql": "SET session_replication_role = replica"}
        with stage.engine.connect() as connection:
            connection.exec_driver_sql(off.get(stage.engine.dialect.name, "SET foreign_key_checks = 0"))
            connection.exec_driver_sql("INSERT INTO items (id, order_id) VALUES (7, 70)")
            connection.commit()
            connection.detach()
        (problem,) = stage.run.check()
        assert problem.code == "CF108"
        assert "1 rows: id = 7, order_id = 70" in problem.what
