"""What takes two upgrades, since both releases know both tables: one column follows the other, which then goes."""

from __future__ import annotations

import sqlalchemy as sa

from contraflow import (
    CopyColumn,
    DropColumn,
    DropForeignKey,
    DropIndex,
    DropTable,
    LoosenNotNull,
    Runner,
    Source,
)
from contraflow.operations.base import Operation
from tests.servers.shared import Database
from tests.upgrades import upgrade_of


def upgrade(database: Database, number: int, *operations: Operation) -> Runner:
    """The first or the second upgrade, which no problem keeps from beginning."""
    old = f"r{number - 1}" if number > 1 else None
    run = Runner(database.url, upgrade_of(*operations, old=old, new=f"r{number}"))
    assert run.check() == []
    return run


def send(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_a_column_moves_to_a_table_that_both_releases_know(database: Database) -> None:
    metadata = sa.MetaData()
    users = sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
    users.append_column(sa.Column("bio", sa.String(20)))
    key = sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    key.autoincrement = False
    sa.Table("profiles", metadata, key, sa.Column("theme", sa.String(20), nullable=False))
    metadata.create_all(database.engine)
    send(database, "INSERT INTO users (id, bio) VALUES (1, 'one'), (2, 'two')")
    send(database, "INSERT INTO profiles (user_id, theme) VALUES (1, 'dark'), (2, 'light')")

    bio = sa.Column("bio", sa.String(20))
    copy = CopyColumn(table="profiles", column=bio, sources=[Source(table="users", column="bio", on={"user_id": "id"})])
    with upgrade(database, 1, copy) as run:
        run.upgrade()
        # The first release writes the old place only, the second one both, and reads the new one.
        send(database, "UPDATE users SET bio = 'first' WHERE id = 1")
        send(
            database,
            "UPDATE users SET bio = 'second' WHERE id = 2",
            "UPDATE profiles SET bio = 'second' WHERE user_id = 2",
        )
        assert rows(database, "SELECT user_id, bio FROM profiles ORDER BY 1") == [(1, "first"), (2, "second")]
        run.contract()
    with upgrade(database, 2, DropColumn(table="users", column="bio")) as run:
        run.upgrade()
        # The second release still writes both, the third one the new place only.
        send(
            database, "UPDATE users SET bio = 'both' WHERE id = 1", "UPDATE profiles SET bio = 'both' WHERE user_id = 1"
        )
        send(database, "UPDATE profiles SET bio = 'third' WHERE user_id = 2")
        send(database, "INSERT INTO users (id) VALUES (3)", "INSERT INTO profiles VALUES (3, 'dark', 'new')")
        run.contract()
    assert rows(database, "SELECT * FROM profiles ORDER BY 1") == [
        (1, "dark", "both"),
        (2, "light", "third"),
        (3, "dark", "new"),
    ]
    assert rows(database, "SELECT * FROM users ORDER BY 1") == [(1,), (2,), (3,)]


def test_a_table_is_joined_into_those_that_refer_to_it(database: Database) -> None:
    """Many to one: the reverse of a look-up table that is extracted."""
    metadata = sa.MetaData()
    sa.Table(
        "customers",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(20), nullable=False),
    )
    sa.Table(
        "orders",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("customer_id", sa.Integer, sa.ForeignKey("customers.id"), index=True, nullable=False),
    )
    metadata.create_all(database.engine)
    send(database, "INSERT INTO customers (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    send(database, "INSERT INTO orders (id, customer_id) VALUES (1, 1), (2, 2), (3, 2)")

    name = sa.Column("customer", sa.String(20), nullable=False)
    source = Source(table="customers", column="name", on={"customer_id": "id"})
    first = upgrade(
        database,
        1,
        CopyColumn(table="orders", column=name, sources=[source]),
        LoosenNotNull(table="orders", column="customer_id"),
    )
    with first as run:
        run.upgrade()
        send(
            database,
            "UPDATE customers SET name = 'Eve' WHERE id = 2",
            "INSERT INTO orders (id, customer_id) VALUES (4, 1)",
        )
        run.contract()
    assert rows(database, "SELECT id, customer FROM orders ORDER BY 1") == [
        (1, "Ada"),
        (2, "Eve"),
        (3, "Eve"),
        (4, "Ada"),
    ]
    second = upgrade(
        database,
        2,
        DropForeignKey(table="orders", columns=["customer_id"]),
        DropIndex(table="orders", name="ix_orders_customer_id"),
        DropColumn(table="orders", column="customer_id"),
        DropTable(table="customers"),
    )
    with second as run:
        run.upgrade()
        # The second release still writes both, the third one knows no customers.
        send(database, "INSERT INTO orders (id, customer_id, customer) VALUES (5, 1, 'Ada')")
        send(database, "INSERT INTO orders (id, customer) VALUES (6, 'Zoe')")
        run.contract()
    assert rows(database, "SELECT * FROM orders WHERE id > 4 ORDER BY id") == [(5, "Ada"), (6, "Zoe")]
    assert not sa.inspect(database.engine).has_table("customers")
