"""Online steps of MySQL and MariaDB, beside writers."""

import pytest

from contraflow import dialects
from contraflow.dialects.base import LockTimeout, Statement
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
