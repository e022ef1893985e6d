"""What only MySQL and MariaDB have: definitions kept on the way, hidden columns, privileges, metadata locks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.dialects import for_profile
from contraflow.dialects.base import LockTimeout, Profile, Statement
from contraflow.dialects.galera import GaleraAdapter, XtraDBClusterAdapter
from contraflow.dialects.mysql_text import Grants, filler, redefined
from contraflow.lens import Lens
from contraflow.problems import ProblemError
from contraflow.steps import AddColumns
from tests.dialects.support import (
    MARKER,
    RENAME,
    TIMEOUT,
    Case,
    connected,
    fill,
    rows,
    run,
    run_online,
    send,
)
from tests.servers.shared import Database

ON_BOTH = pytest.mark.only_on("mariadb", "mysql")

CREATE = "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, fullname VARCHAR(60) NOT NULL)"


def column_line(connection: sa.Connection, name: str) -> str:
    create = str(connection.exec_driver_sql("SHOW CREATE TABLE users").one()[1])
    return next(line.strip().rstrip(",") for line in create.splitlines() if line.strip().startswith(f"`{name}`"))


@ON_BOTH
def test_a_column_keeps_its_definition_when_it_becomes_not_null(database: Database) -> None:
    comment = "it's \\ 100%, NOT NULL INVISIBLE DEFAULT NULL"
    types: dict[str, tuple[sa.types.TypeEngine[Any], str | None]] = {
        "latin": (sa.dialects.mysql.VARCHAR(30, charset="latin1", collation="latin1_german1_ci"), None),
        "kind": (sa.Enum("a", "it's", "NOT NULL"), "'a'"),
        "big": (sa.dialects.mysql.BIGINT(unsigned=True), "7"),
        "price": (sa.Numeric(10, 2), None),
        "seen": (sa.dialects.mysql.DATETIME(fsp=6), "CURRENT_TIMESTAMP(6)"),
        "stamp": (sa.dialects.mysql.TIMESTAMP(), None),
        "doc": (sa.JSON(), None),
        "note": (sa.Text(), "'none'"),
    }
    lens = Lens(old=["fullname"], new=list(types), forward=lambda _row: {})
    case = Case(
        lens=lens,
        types={name: type_ for name, (type_, _) in types.items()},
        defaults={name: default for name, (_, default) in types.items() if default},
    )
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        expand = case.expand
        add = expand.steps[0]
        assert isinstance(add, AddColumns)
        for op in add.columns:
            op.column.comment = comment
        run(connection, adapter, expand)
        assert connection.exec_driver_sql("SELECT * FROM users").keys() == ["id", "fullname"]
        before = {name: column_line(connection, name) for name in types}
        run_online(connection, adapter, case.enforce)
        run(connection, adapter, case.contract)
        metadata = sa.MetaData()
        # What a server makes of the same columns when they are written by hand.
        sa.Table(
            "by_hand",
            metadata,
            *(
                sa.Column(
                    name, type_, nullable=False, comment=comment, server_default=sa.text(written) if written else None
                )
                for name, (type_, default) in types.items()
                for written in [f"({default})" if name == "note" else default]
            ),
        )
        metadata.create_all(connection)
        create = str(connection.exec_driver_sql("SHOW CREATE TABLE by_hand").one()[1])
        for name in types:
            assert "INVISIBLE" in before[name].replace(comment, "")
            assert column_line(connection, name) in create
        assert set(connection.exec_driver_sql("SELECT * FROM users").keys()) == {"id", *types}


@ON_BOTH
def test_new_columns_and_the_marker_are_hidden_until_contract(database: Database) -> None:
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        run(connection, adapter, case.expand)
        send(connection, "INSERT INTO users VALUES (1, 'Ada')")
        assert [*map(tuple, connection.exec_driver_sql("SELECT * FROM users"))] == [(1, "Ada")]
        assert rows(connection, adapter, case, ("display_name", MARKER)) == [("Ada", 1)]


@ON_BOTH
def test_the_triggers_keep_a_strict_session_in_utf8(database: Database) -> None:
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE, "SET sql_mode = ''", "SET NAMES latin1", "SET time_zone = '+09:00'")
        adapter.prepare(connection)
        run(connection, adapter, case.expand)
        kept = connection.exec_driver_sql(
            "SELECT sql_mode, character_set_client FROM information_schema.triggers"
            " WHERE event_object_schema = database()"
        )
        assert [*map(tuple, kept)] == [("STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION", "utf8mb4")] * 2
        assert connection.exec_driver_sql("SELECT @@time_zone").scalar() == "+00:00"
    with connected(database.engine) as (connection, adapter):
        # An old node in a lax session: a value that does not fit the new column is refused, not cut.
        send(connection, "SET sql_mode = ''", "ALTER TABLE users MODIFY display_name VARCHAR(3) NULL INVISIBLE")
        with pytest.raises(sa.exc.DBAPIError):
            send(connection, "INSERT INTO users (id, fullname) VALUES (2, 'Grace')")


@ON_BOTH
def test_zero_dates_of_a_lax_application_still_work(database: Database) -> None:
    lens = Lens(
        old=["born"],
        new=["birthday"],
        forward=lambda row: {"birthday": row.born},
        backward=lambda row: {"born": row.birthday},
    )
    case = Case(lens=lens, types={"born": sa.Date(), "birthday": sa.Date()})
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            "SET sql_mode = ''",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, born DATE NOT NULL DEFAULT '0000-00-00', a INTEGER)",
        )
        adapter.prepare(connection)
        run(connection, adapter, case.expand)
        send(connection, "SET sql_mode = ''", "INSERT INTO users (id) VALUES (1)")
        found = connection.exec_driver_sql("SELECT CAST(birthday AS CHAR) FROM users").scalar()
        assert found == "0000-00-00"


@ON_BOTH
def test_writers_do_not_queue_behind_a_hold_that_waits(database: Database) -> None:
    """The writer's own wait is bounded by the server's smallest unit, a second; the hold's by the watch."""
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter), database.engine.connect() as reader:
        send(connection, CREATE, "INSERT INTO users VALUES (1, 'Ada')")
        reader.exec_driver_sql("SELECT * FROM users").all()
        for _ in range(10):
            with connected(database.engine) as (own, same), pytest.raises(LockTimeout) as caught:
                run(own, same, case.expand)
            if "1317" in str(caught.value):
                break
            assert "1205" in str(caught.value)  # the watch was late, and the server's own limit held
        assert "1317" in str(caught.value)
        with database.engine.connect() as writer:
            writer.exec_driver_sql("SET lock_wait_timeout = 1")
            writer.exec_driver_sql("UPDATE users SET fullname = 'Ada!'")
            writer.commit()
        assert adapter.find(connection, "users", None).columns == {"id": False, "fullname": False}


@ON_BOTH
def test_an_online_step_gives_up_its_wait_too(database: Database) -> None:
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter), database.engine.connect() as reader:
        send(connection, CREATE, "INSERT INTO users VALUES (1, 'Ada')")
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        reader.exec_driver_sql("SELECT * FROM users").all()
        with pytest.raises(LockTimeout):
            run_online(connection, adapter, case.enforce)
        assert adapter.find(connection, "users", None).columns["display_name"] is True
        reader.rollback()
        run_online(connection, adapter, case.enforce)
        assert adapter.find(connection, "users", None).columns["display_name"] is False
        # The connection is as good as before: nothing of the killed statement is left to hit the next one.
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


@ON_BOTH
def test_a_table_without_instant_ddl_is_rebuilt_and_the_plan_says_so(database: Database) -> None:
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            "CREATE TABLE users (id INTEGER PRIMARY KEY, fullname VARCHAR(60) NOT NULL, bio TEXT, FULLTEXT (bio))"
            " ROW_FORMAT=COMPRESSED",
            "INSERT INTO users (id, fullname) VALUES (1, 'Ada')",
        )
        found = adapter.find(connection, "users", None)
        assert "rebuilding" in adapter.hold(case.expand, found)[0].lock
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        found = adapter.find(connection, "users", None)
        assert "copied" in adapter.online(case.enforce, found)[0].lock
        run_online(connection, adapter, case.enforce)
        run(connection, adapter, case.contract)
        assert rows(connection, adapter, case, ("id", "display_name")) == [(1, "Ada")]


@pytest.mark.only_on("mysql")
def test_a_table_worn_by_instant_changes_is_rebuilt(database: Database) -> None:
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        for _ in range(126):
            send(
                connection,
                "ALTER TABLE users ADD COLUMN x INTEGER, ALGORITHM=INSTANT",
                "ALTER TABLE users DROP COLUMN x, ALGORITHM=INSTANT",
            )
        found = adapter.find(connection, "users", None)
        assert found.details["instant"] is False
        run(connection, adapter, case.expand)
        for _ in range(5):
            run(connection, adapter, case.rollback)
            run(connection, adapter, case.expand)


@ON_BOTH
def test_an_alter_that_would_need_a_rebuild_is_a_problem(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        with pytest.raises(ProblemError, match="CF205"):
            adapter.send(connection, Statement(sql="ALTER TABLE users MODIFY id BIGINT NOT NULL, ALGORITHM=INSTANT"))


@ON_BOTH
def test_preflight_names_tables_that_cannot_be_altered_or_walked(database: Database) -> None:
    """Of a FLOAT the server shows, and compares with, another value than it holds: such a row is never reached."""
    with connected(database.engine) as (connection, adapter):
        tables = {"measured": "CREATE TABLE measured (id FLOAT PRIMARY KEY, word TEXT)"}
        if database.kind == "mariadb":
            tables["aged"] = "CREATE TABLE aged (id INTEGER PRIMARY KEY) WITH SYSTEM VERSIONING"
            tables["numbered"] = (
                "CREATE TABLE numbered (id INTEGER DEFAULT NEXTVAL(numbers), word TEXT DEFAULT 'nextval(')"
            )
            send(connection, "CREATE SEQUENCE numbers")
        else:
            tables["numbered"] = "CREATE TABLE numbered (id INTEGER PRIMARY KEY, word VARCHAR(20) DEFAULT 'nextval(')"
        send(connection, *tables.values())
        found = [adapter.preflight(connection, [(None, table)]) for table in tables]
        assert [[problem.code for problem in problems] for problems in found] == [
            [] if (table, database.kind) == ("numbered", "mysql") else ["CF205"] for table in tables
        ]
        send(connection, "INSERT INTO measured VALUES (0.1, 'x')")
        reached = "SELECT count(*) FROM measured WHERE id <= %s"
        key = connection.exec_driver_sql("SELECT id FROM measured").scalar_one()
        assert connection.exec_driver_sql(reached, (key,)).scalar_one() == 0


@ON_BOTH
def test_preflight_names_privileges_and_storage_engines_that_cannot_work(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE, "CREATE TABLE cache (id INTEGER PRIMARY KEY) ENGINE=MyISAM")
        tables = [(None, "users"), (None, "missing")]
        assert adapter.preflight(connection, tables) == []
        (problem,) = adapter.preflight(connection, [(None, "cache")])
        assert (problem.code, "MyISAM" in problem.what) == ("CF205", True)
        account = f"few_{database.url.database}"[:32]
        send(
            connection,
            f"CREATE USER {account}@'%' IDENTIFIED BY 'secret'",
            f"GRANT SELECT, INSERT, UPDATE, ALTER, CREATE ON {database.url.database}.* TO {account}@'%'",
        )
        try:
            url = database.url.set(username=account, password="secret")
            with connected(sa.create_engine(url, poolclass=sa.NullPool)) as (limited, same):
                found = {problem.code: problem for problem in same.preflight(limited, tables)}
                texts = [str(problem) for problem in same.preflight(limited, tables)]
                assert set(found) == {"CF202"}
                assert any("1419" in text and "log_bin_trust_function_creators" in text for text in texts)
                assert any("lacks DROP, TRIGGER, LOCK TABLES on" in text for text in texts)
            send(
                connection,
                f"GRANT ALL ON {database.url.database}.* TO {account}@'%'",
                f"GRANT SUPER ON *.* TO {account}@'%'",
            )
            with connected(sa.create_engine(url, poolclass=sa.NullPool)) as (limited, same):
                assert same.preflight(limited, tables) == []
                run(limited, same, Case(lens=RENAME).expand)
        finally:
            send(connection, f"DROP USER {account}@'%'")


# --- texts --------------------------------------------------------------------------------------

SHOWN = """CREATE TABLE `t` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `a,b` varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin INVISIBLE DEFAULT NULL COMMENT 'NOT NULL, `x` \\' '',',
  `m` varchar(5) DEFAULT NULL COMMENT 'hidden' /*!80023 INVISIBLE */,
  `j` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`j`)),
  `p` point DEFAULT NULL /*!80003 SRID 4326 */,
  `ts` timestamp NULL DEFAULT NULL ON UPDATE current_timestamp(),
  `n` int(11) DEFAULT (1 + 2),
  `e` enum('NOT','NULL,') DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB"""


@pytest.mark.parametrize(
    ("column", "not_null", "default", "expected"),
    [
        (
            "A,B",
            True,
            None,
            "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'NOT NULL, `x` \\' '','",
        ),
        ("m", False, "'x'", "varchar(5) NULL DEFAULT 'x' COMMENT 'hidden'"),
        ("j", True, None, "json NOT NULL"),
        ("ts", True, "now()", "timestamp NOT NULL DEFAULT now() ON UPDATE current_timestamp()"),
        ("n", True, None, "int(11) NOT NULL DEFAULT (1 + 2)"),
        ("n", False, "uuid_short()", "int(11) NULL DEFAULT (uuid_short())"),
        ("e", True, "'NOT'", "enum('NOT','NULL,') NOT NULL DEFAULT 'NOT'"),
    ],
)
def test_a_definition_is_redefined_and_nothing_else_changes(
    column: str, not_null: bool, default: str | None, expected: str
) -> None:
    assert redefined(SHOWN, column, not_null=not_null, default=default) == expected


def test_a_spatial_reference_stays() -> None:
    assert "SRID 4326" in redefined(SHOWN, "p", not_null=True, default=None)


def test_an_unknown_column_has_no_definition() -> None:
    with pytest.raises(ValueError, match="no column 'z'"):
        redefined(SHOWN, "z", not_null=True, default=None)


@pytest.mark.parametrize(
    ("grant", "privilege", "database", "table", "expected"),
    [
        ("GRANT ALL PRIVILEGES ON *.* TO `a`@`b` WITH GRANT OPTION", "SUPER", None, None, True),
        ("GRANT ALL PRIVILEGES ON `d`.* TO `a`@`b`", "SUPER", None, None, False),
        ("GRANT ALL PRIVILEGES ON `d`.* TO `a`@`b`", "TRIGGER", "d", "t", True),
        ("GRANT ALL PRIVILEGES ON `d`.* TO `a`@`b`", "TRIGGER", "dd", "t", False),
        ("GRANT SELECT, LOCK TABLES ON `my\\_app%`.* TO `a`@`b`", "LOCK TABLES", "my_app_1", "t", True),
        ("GRANT SELECT, LOCK TABLES ON `my\\_app%`.* TO `a`@`b`", "LOCK TABLES", "my1app_1", "t", False),
        ("GRANT SELECT (`x`, `y`), ALTER ON `d`.`t t` TO `a`@`b`", "ALTER", "d", "t t", True),
        ("GRANT SELECT (`x`, `y`), ALTER ON `d`.`t t` TO `a`@`b`", "ALTER", "d", "u", False),
        ("GRANT USAGE ON *.* TO `a`@`b` IDENTIFIED BY PASSWORD '*1'", "SELECT", "d", "t", False),
        ("GRANT `role`@`%` TO `a`@`b`", "SELECT", "d", "t", False),
    ],
)
def test_grants_are_read(grant: str, privilege: str, database: str | None, table: str | None, expected: bool) -> None:
    assert Grants([grant]).allows(privilege, database, table) is expected


@ON_BOTH
def test_every_filler_is_a_default_of_its_type(database: Database) -> None:
    types = [
        "tinyint(1)",
        "bigint unsigned",
        "decimal(10,2)",
        "double",
        "char(3)",
        "varchar(3)",
        "varbinary(3)",
        "mediumtext",
    ]
    types += [
        "blob",
        "json",
        "date",
        "datetime(6)",
        "timestamp",
        "time",
        "year",
        "bit(3)",
        "enum('it''s','b')",
        "set('a')",
        "point",
    ]
    with connected(database.engine) as (connection, adapter):
        types += ["uuid", "inet6"] if adapter.product == "mariadb" else []
        for place, type_ in enumerate(types):
            send(connection, f"CREATE TABLE t{place} (a {type_} NOT NULL, b INTEGER)")
            text = filler(adapter.find(connection, f"t{place}", None).details["types"]["a"])
            send(
                connection,
                f"ALTER TABLE t{place} ALTER COLUMN a SET DEFAULT {text}, ALGORITHM=INSTANT",
                f"INSERT INTO t{place} (b) VALUES (1)",
            )
    assert filler("polygon") is None


# --- Galera -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "version", "adapter"),
    [("mariadb", (10, 11, 18), GaleraAdapter), ("mysql", (8, 0, 36), XtraDBClusterAdapter)],
)
def test_a_cluster_has_no_lock_hold_and_says_what_stops(
    product: str, version: tuple[int, ...], adapter: type[GaleraAdapter]
) -> None:
    found = for_profile(Profile(product=product, version=version, settings={"wsrep_on": "ON"}))
    assert type(found) is adapter
    case = Case(lens=RENAME)
    around = [*found.opening(case.expand, TIMEOUT), *found.closing(case.expand)]
    assert not any("LOCK TABLES" in statement.sql for statement in around)
    assert any("wsrep_OSU_method = 'TOI'" in statement.sql for statement in around)
    rest = "DO SLEEP(0.2)"  # of MariaDB: see GaleraAdapter
    sent = [statement for statement in found.hold(case.expand, None) if statement.sql != rest]
    assert all("whole" in statement.lock or "cluster" in statement.lock for statement in sent)
    alone = for_profile(Profile(product=product, version=version, settings={"wsrep_on": "OFF"}))
    assert [statement.sql for statement in alone.hold(case.contract, None)] == [
        statement.sql for statement in found.hold(case.contract, None) if statement.sql != rest
    ]
    texts = [statement.sql for statement in found.hold(case.expand, None)]
    rested = [before == rest for before, text in itertools.pairwise(texts) if "CREATE TRIGGER" in text]
    assert set(rested) == {product == "mariadb"}
