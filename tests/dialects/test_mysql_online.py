"""Online steps of MySQL and MariaDB, beside writers."""

import pytest
import sqlalchemy as sa

from contraflow import dialects
from contraflow.dialects.base import LockTimeout, NotUnique, Statement
from contraflow.engine import State
from tests.engine import service
from tests.servers.shared import Database


@pytest.mark.only_on("mysql", "mariadb")
def test_a_duplicate_met_by_an_online_alter_table_is_worth_a_new_try(database: Database) -> None:
    """MySQL fails it with 1062 if another writer's INSERT was refused as a duplicate meanwhile."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE users (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO users VALUES (1)")
        connection.commit()
        adapter = dialects.choose(connection)
        refused = Statement(sql="INSERT INTO users VALUES (1)")
        with pytest.raises(LockTimeout, match="1062"), adapter.running_online(connection, 1.0):
            adapter.send(connection, refused)


@pytest.mark.only_on("mysql", "mariadb")
def test_an_online_alter_table_that_writers_end_again_and_again_makes_them_wait(database: Database) -> None:
    """As error 1062 does, which comes from the writers: a retry alone might never get through."""
    service.make_tables(database.engine, tables=("users",))
    upgrade = service.upgrade(tables=("users",))
    sent: list[str] = []

    def refuse(statement: Statement) -> None:
        if "ALGORITHM=INPLACE, LOCK=" in statement.sql:
            sent.append(statement.sql.rpartition("=")[2])
            if sent[-1] == "NONE":
                raise NotUnique("1062")

    with service.runner(database.url, upgrade, sleep=lambda _seconds: None, before_statement=refuse) as runner:
        runner.upgrade()
        planned = [one.statement for one in runner.plan().phases["contract"] if "LOCK=NONE" in one.statement.sql]
        assert all("LOCK=SHARED" in statement.lock for statement in planned)
        assert planned
        runner.contract()
        assert runner.status().state is State.CONTRACTED
    assert sent == ["NONE"] * 5 + ["SHARED"]
    nullable = {column["name"]: column["nullable"] for column in sa.inspect(database.engine).get_columns("users")}
    assert nullable["first_name"] is False


@pytest.mark.only_on("mysql", "mariadb")
@pytest.mark.parametrize(
    ("check", "copies_on_mysql"),
    [
        ("CHECK (due >= '1980-01-01')", True),
        ("CHECK (DUE >= '1980-01-01' AND visits >= 0)", True),
        ("CHECK (visits >= 0 AND 'due' <> '`due`')", False),
    ],
)
def test_a_check_that_reads_a_time_makes_mysql_copy_the_table(
    database: Database, check: str, copies_on_mysql: bool
) -> None:
    """MySQL 9.7 refuses ALGORITHM=INPLACE for NOT NULL then (1845), whatever column it is; MariaDB does not."""
    service.make_tables(database.engine, tables=("users",))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN due DATE")
        connection.exec_driver_sql(f"ALTER TABLE users ADD CONSTRAINT ck_due {check}")
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        runner.upgrade()
        locks = [one.statement.lock for one in runner.plan().phases["contract"]]
        copies = any("while the table is copied" in lock for lock in locks)
        assert copies is (copies_on_mysql and database.kind == "mysql")
        runner.contract()
        assert runner.status().state is State.CONTRACTED
