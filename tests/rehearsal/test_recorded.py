"""Recorded SQL: what is read of files and logs, and how it is replayed and judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.recorded import Replay, Session, read
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.alembic.project import two_changes
from tests.cli.commandline import contraflow
from tests.rehearsal.test_rehearse import SERVING, drop_triggers, explain, rehearse, until_apart, until_written

PLAIN = """
-- a comment
SET search_path = shop;
INSERT INTO a VALUES (1, 'x; y');
BEGIN;
UPDATE a SET b = 'it''s';
SELECT * FROM a;
COMMIT;
START TRANSACTION; DELETE FROM a; ROLLBACK;
begin; insert into a values (2); savepoint s; delete from a; rollback to s; end;
"""
SESSION: Session = (
    ("INSERT INTO a VALUES (1, 'x; y')",),
    ("UPDATE a SET b = 'it''s'", "SELECT * FROM a"),
    ("insert into a values (2)", "savepoint s", "delete from a", "rollback to s"),
)

# Written by PostgreSQL 18.6, psycopg 3 (log_statement = all).
POSTGRESQL = """\
2026-11-22 10:39:31.693 UTC [17499] LOG:  statement: BEGIN
2026-11-22 10:39:31.693 UTC [17499] LOG:  execute <unnamed>: INSERT INTO t (id, a) VALUES ($1::INTEGER, $2::VARCHAR)
2026-11-22 10:39:31.693 UTC [17499] DETAIL:  Parameters: $1 = '1', $2 = 'it''s; $1
\t second line'
2026-11-22 10:39:31.694 UTC [17500] LOG:  statement: UPDATE t SET a = '$1'
2026-11-22 10:39:31.694 UTC [17499] LOG:  statement: COMMIT
2026-11-22 10:39:31.695 UTC [17499] LOG:  execute _pg3_0: UPDATE t SET a=$1
\tWHERE t.id = $2
2026-11-22 10:39:31.695 UTC [17499] DETAIL:  Parameters: $1 = NULL, $2 = '2'
2026-11-22 10:39:31.695 UTC [17499] LOG:  statement: show data_directory
2026-11-22 10:39:31.695 UTC [17500] LOG:  statement: INSERT INTO t VALUES (1)
2026-11-22 10:39:31.695 UTC [17500] ERROR:  duplicate key value violates unique constraint "t_pkey"
2026-11-22 10:39:31.695 UTC [17500] STATEMENT:  INSERT INTO t VALUES (1)
2026-11-22 10:39:31.695 UTC [17498] LOG:  checkpoint starting: time
"""
# Written by MariaDB 10.11.18, PyMySQL.
MARIADB = """\
mariadbd, Version: 10.11.18-MariaDB. started with:
Time\t\t    Id Command\tArgument
261122 10:39:05\t     7 Query\tROLLBACK
\t\t     8 Connect\troot@127.0.0.1 on shop using TCP/IP
\t\t     8 Query\tSET AUTOCOMMIT = 0
\t\t     8 Query\tCREATE TABLE t (
\tid INTEGER
)
\t\t     8 Query\tCOMMIT
\t\t     8 Query\tINSERT INTO t (id, a) VALUES (1, 'it\\'s; $1
 second line')
\t\t     8 Query\tINSERT INTO t (id, a) VALUES (2, NULL)
261122 10:39:06\t     8 Query\tCOMMIT
\t\t     7 Query\tDELETE FROM t
\t\t     8 Query\tUPDATE t SET a='rolled back'
\t\t     8 Query\tROLLBACK
\t\t     8 Quit\t
"""
# Written by MySQL 9.7.4.
MYSQL = """\
2026-11-22T10:39:27.786584Z\t   12 Query\tBEGIN
2026-11-22T10:39:27.786967Z\t   12 Execute\tUPDATE t SET a='n1' WHERE t.id = 2
2026-11-22T10:39:27.793196Z\t   12 Query\tCOMMIT
"""


@pytest.mark.parametrize(
    ("text", "sessions", "left_out"),
    [
        (PLAIN, [SESSION], 1),
        ("INSERT INTO a VALUES (1)\nDELETE FROM a\n", [(("INSERT INTO a VALUES (1)",), ("DELETE FROM a",))], 0),
        (
            POSTGRESQL,
            [
                (
                    ("INSERT INTO t (id, a) VALUES ('1'::INTEGER, 'it''s; $1\n second line'::VARCHAR)",),
                    ("UPDATE t SET a=NULL\nWHERE t.id = '2'",),
                ),
                (("UPDATE t SET a = '$1'",),),
            ],
            1,
        ),
        (
            MARIADB,
            [
                (("DELETE FROM t",),),
                (
                    (
                        "INSERT INTO t (id, a) VALUES (1, 'it\\'s; $1\n second line')",
                        "INSERT INTO t (id, a) VALUES (2, NULL)",
                    ),
                ),
            ],
            1,
        ),
        (MYSQL, [(("UPDATE t SET a='n1' WHERE t.id = 2",),)], 0),
    ],
    ids=["plain", "lines", "postgresql", "mariadb", "mysql"],
)
def test_what_is_recorded_is_read(tmp_path: Path, text: str, sessions: list[Session], left_out: int) -> None:
    path = tmp_path / "recorded"
    path.write_text(text)
    found = read(path)
    assert sorted(found.sessions) == sorted(sessions)
    assert found.left_out == left_out


def test_a_file_without_statements_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recorded"
    path.write_text("SET a = 1;")
    with pytest.raises(ValueError, match="no statement"):
        read(path)


def test_a_session_is_replayed_in_its_order_and_at_its_rate() -> None:
    replay = Replay(sessions=[(("a",), ("b",)), (("c",),)], rate=10.0)
    taken = [replay.take(0.0), replay.take(0.0)]
    assert [one[0] for one in taken if one] == [("a",), ("c",)]
    assert replay.take(0.0) is None
    for one in taken:
        assert one is not None
        one[1]()
    assert replay.take(0.05) is None  # not due yet
    again = [replay.take(0.2), replay.take(0.2)]
    assert sorted(one[0] for one in again if one) == [("b",), ("c",)]


OLD = """
UPDATE users SET fullname = 'Old 1' WHERE id = 1;
BEGIN;
INSERT INTO users (id, fullname) VALUES (500, 'Old 500%');
UPDATE users SET fullname = 'Old :x' WHERE id = 500;
COMMIT;
SELECT fullname FROM users;
DELETE FROM users WHERE id = 500;
"""
NEW = """
UPDATE users SET display_name = 'New 1' WHERE id = 1;
INSERT INTO users (id, display_name) VALUES (600, 'New');
INSERT INTO users (id, display_name) VALUES (600, 'again');
DELETE FROM users WHERE id = 600;
"""


def recorded(folder: Path, old: str = OLD, new: str = NEW) -> dict[str, Workload]:
    for name, text in (("old.sql", old), ("new.sql", new)):
        (folder / name).write_text(text)
    return {
        "old_workload": Workload(recordings=(folder / "old.sql",)),
        "new_workload": Workload(recordings=(folder / "new.sql",)),
    }


@pytest.mark.only_on("sqlite", "postgresql", "mysql")
def test_recorded_statements_are_replayed_and_rows_compared(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase in SERVING:
            until_written(engine, 4)

    recordings = recorded(tmp_path)
    record = rehearse(server, project.ini, seconds=0.6, sql_rate=200.0, **recordings).run(meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    assert record.counts["recorded transactions"] > 0
    assert record.counts["refused alike without the upgrade"] > 0  # what is inserted twice
    assert {bucket.release for bucket in record.buckets} == {"old", "new"}


@pytest.mark.only_on("sqlite")
def test_a_recorded_statement_that_fails_because_of_the_upgrade_is_found(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "both releases":
            drop_triggers(engine, "users")
        if phase == "checking every row before contract":
            until_apart(engine, 1)

    workloads = recorded(tmp_path)
    record = rehearse(server, project.ini, seconds=0.6, sql_rate=100.0, **workloads).run(meanwhile=meanwhile)
    kinds = {finding.kind for finding in record.findings}
    assert kinds & {"failed", "differs"}, explain(record)
    assert record.verdict == "failed"


def test_recordings_are_named_by_release(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    recorded(tmp_path)
    old, new = f"old={tmp_path / 'old.sql'}", f"new={tmp_path / 'new.sql'}"
    for given, told in (
        (("--sql", old), "--sql new=FILE"),
        (("--sql", "x"), "old=FILE"),
        (("--sql", "old=/no"), "/no"),
    ):
        done = contraflow("rehearse", "-c", project.ini, *given, *(("--sql", new) if "/no" in given[1] else ()))
        assert done.code == 1
        assert told in done.err
    options = ("-x", "tenant=secret", "--sql", old, "--sql", new, "--sql-rate", "50", "--seconds", "0.6", "--json")
    done = contraflow("rehearse", "-c", project.ini, *options)
    assert done.code == 0, done.out
    (record,) = json.loads(done.out)["rehearsals"]
    # What to type to have the same again; but what may be a password is not told.
    assert record["command"].startswith(f"contraflow -c {project.ini} -x tenant=VALUE rehearse --on sqlite")
    assert record["command"].endswith(f"--sql {old} --sql {new} --sql-rate 50")


def test_a_rate_is_above_nothing() -> None:
    with pytest.raises(ValueError, match="rate"):
        Rehearsal(sql_rate=0.0)
