"""The scratch servers themselves."""

from __future__ import annotations

import sqlalchemy as sa

from contraflow.rehearsal import servers
from tests.servers.shared import Database


def test_each_database_is_fresh(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    with database.engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["t"]


def test_killed_server_keeps_what_was_committed(private_server: servers.Server) -> None:
    url = private_server.create_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    private_server.kill()
    private_server.restart()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT a FROM t")) == 1
