"""Which fault each server's code stands for. Values only.

Sources: PostgreSQL 18 manual, appendix A; MySQL 9.7 and MariaDB 10.11/11.8 error references (codes that the
two use for different things are left out or said); SQLite result codes (sqlite.org/rescode.html); CockroachDB
v24.3-26.3 ``pgcode`` and its page "Transaction retry error reference". What was provoked on a server is in
``tests/faults``.
"""

from __future__ import annotations

import enum

__all__ = ["MYSQL", "PREPARED_PLAN_ROUTINE", "SQLITE", "SQLSTATE", "SQLSTATE_CLASS", "Fault"]


class Fault(enum.Enum):
    """A class of database error, the same on every server. The set is closed."""

    DUPLICATE_KEY = "duplicate key"
    FOREIGN_KEY = "foreign key"
    NOT_NULL = "not null"
    CHECK = "check"
    EXCLUSION = "exclusion"
    DATA = "data"
    NO_SUCH_TABLE = "no such table"
    NO_SUCH_COLUMN = "no such column"
    NO_SUCH_DATABASE = "no such database"
    ALREADY_EXISTS = "already exists"
    SYNTAX = "syntax"
    PERMISSION = "permission"
    RAISED = "raised"
    SERIALIZATION = "serialization"
    DEADLOCK = "deadlock"
    LOCK_TIMEOUT = "lock timeout"
    STATEMENT_TIMEOUT = "statement timeout"
    CANCELLED = "cancelled"
    DISCONNECT = "disconnect"
    UNAVAILABLE = "unavailable"
    READ_ONLY = "read only"
    RESOURCES = "resources"
    SCHEMA_CHANGED = "schema changed"
    TRANSACTION_ABORTED = "transaction aborted"
    COMMITTED_IN_PART = "committed in part"
    COMMIT_UNKNOWN = "commit unknown"
    OTHER = "other"

    @property
    def transient(self) -> bool:
        """Whether the same transaction, begun again from its first statement, may well succeed."""
        return self in _TRANSIENT

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _MEANING[self]

    def loses_transaction(self, server: str) -> bool:
        """Whether the open transaction is gone (or good for nothing but ROLLBACK) after this fault.

        A False is no leave to go on: it says that what the transaction did before still stands and would be
        committed. On PostgreSQL and CockroachDB every error of the server loses it, back to the last
        savepoint at most. On MySQL and MariaDB a lock timeout does not, unless ``innodb_rollback_on_timeout``
        is set.

        :param server: ``postgresql``, ``cockroachdb``, ``mysql``, ``mariadb`` or ``sqlite``.
        :raises ValueError: if there is no such server.
        """
        if server in ("postgresql", "cockroachdb"):
            return True
        if server in ("mysql", "mariadb"):
            return self in _LOSES_ON_MYSQL
        if server == "sqlite":
            return self in _LOSES_ON_SQLITE
        raise ValueError(f"unknown server {server!r}")


_TRANSIENT = frozenset(
    {
        Fault.SERIALIZATION,
        Fault.DEADLOCK,
        Fault.LOCK_TIMEOUT,
        Fault.DISCONNECT,
        Fault.UNAVAILABLE,
        Fault.SCHEMA_CHANGED,
    }
)

_LOSES_ON_MYSQL = frozenset(
    {
        Fault.SERIALIZATION,
        Fault.DEADLOCK,
        Fault.DISCONNECT,
        Fault.UNAVAILABLE,
        Fault.RESOURCES,
        Fault.TRANSACTION_ABORTED,
        Fault.COMMIT_UNKNOWN,
    }
)

# SQLITE_BUSY_SNAPSHOT leaves the transaction open, but its snapshot can never be written from: lost all the
# same.
_LOSES_ON_SQLITE = frozenset(
    {
        Fault.SERIALIZATION,
        Fault.DISCONNECT,
        Fault.UNAVAILABLE,
        Fault.RESOURCES,
        Fault.CANCELLED,
        Fault.COMMIT_UNKNOWN,
    }
)

_MEANING = {
    Fault.DUPLICATE_KEY: "A primary key or unique constraint holds this value already.",
    Fault.FOREIGN_KEY: "A referenced row is missing, or a row is still referenced.",
    Fault.NOT_NULL: "NULL was given, or nothing was given, where the column forbids it.",
    Fault.CHECK: "A CHECK constraint says no.",
    Fault.EXCLUSION: "An exclusion constraint (PostgreSQL) says no.",
    Fault.DATA: "A value is too long, out of range, or of the wrong type or form.",
    Fault.NO_SUCH_TABLE: "The table or view does not exist.",
    Fault.NO_SUCH_COLUMN: "The column does not exist.",
    Fault.NO_SUCH_DATABASE: "The database or schema does not exist.",
    Fault.ALREADY_EXISTS: "The object to be created is there already.",
    Fault.SYNTAX: "The statement cannot be parsed.",
    Fault.PERMISSION: "The account may not log in, or may not do this.",
    Fault.RAISED: "A trigger or routine raised an error of its own.",
    Fault.SERIALIZATION: "A concurrent transaction makes this one impossible.",
    Fault.DEADLOCK: "The server chose this transaction to end a deadlock, or a Galera node lost a conflict.",
    Fault.LOCK_TIMEOUT: "A lock could not be had in time, or at once with NOWAIT.",
    Fault.STATEMENT_TIMEOUT: "The statement ran longer than allowed. PostgreSQL reports it as CANCELLED.",
    Fault.CANCELLED: "Somebody or a time limit cancelled the statement.",
    Fault.DISCONNECT: "The connection is lost.",
    Fault.UNAVAILABLE: "No server, or one that is starting, stopping, full, or outside its cluster's quorum.",
    Fault.READ_ONLY: "The server, database or transaction does not take writes.",
    Fault.RESOURCES: "The server is out of disk, memory or another resource.",
    Fault.SCHEMA_CHANGED: "A plan or snapshot is older than the table's present definition.",
    Fault.TRANSACTION_ABORTED: "An earlier error of this transaction was swallowed; only ROLLBACK is left.",
    Fault.COMMITTED_IN_PART: "The data is committed, the schema change is not (CockroachDB, XXA00).",
    Fault.COMMIT_UNKNOWN: "Nobody can tell whether the transaction is committed.",
    Fault.OTHER: "Everything else.",
}


def _table(groups: dict[Fault, str]) -> dict[str, Fault]:
    return {code: fault for fault, codes in groups.items() for code in codes.split()}


PREPARED_PLAN_ROUTINE = "RevalidateCachedQuery"
"""0A000 is also every unsupported feature; "cached plan must not change result type" alone comes from here
(PostgreSQL, src/backend/utils/cache/plancache.c), and the name is the same in every language."""

SQLSTATE: dict[str, Fault] = _table(
    {
        Fault.DUPLICATE_KEY: "23505",
        Fault.FOREIGN_KEY: "23503 23001",
        Fault.NOT_NULL: "23502",
        Fault.CHECK: "23514",
        Fault.EXCLUSION: "23P01",
        Fault.DATA: "42804",
        Fault.NO_SUCH_TABLE: "42P01",
        Fault.NO_SUCH_COLUMN: "42703",
        Fault.NO_SUCH_DATABASE: "3D000 3F000",
        Fault.ALREADY_EXISTS: "42P07 42701 42710 42723 42P06 42P04 42P03",
        Fault.SYNTAX: "42601",
        Fault.PERMISSION: "42501",
        Fault.RAISED: "P0001",
        # 40000 and 72000 (snapshot too old) stand for the same way out: begin again.
        Fault.SERIALIZATION: "40001 40000 72000",
        Fault.DEADLOCK: "40P01",
        Fault.LOCK_TIMEOUT: "55P03",
        Fault.CANCELLED: "57014",
        # 25P03, 25P04 and 57P05 are timeouts that end the session.
        Fault.DISCONNECT: "08000 08003 08006 08007 57P01 57P02 57P04 57P05 25P03 25P04",
        Fault.UNAVAILABLE: "08001 08004 57P03 53300 08C00 58C00 58C01 XXC03",
        Fault.READ_ONLY: "25006",
        Fault.RESOURCES: "53000 53100 53200 53400",
        Fault.SCHEMA_CHANGED: "55C01",
        Fault.TRANSACTION_ABORTED: "25P02",
        Fault.COMMITTED_IN_PART: "XXA00",
        Fault.COMMIT_UNKNOWN: "40003",
    }
)
"""PostgreSQL's and CockroachDB's codes. Those with a C in fourth place are CockroachDB's own."""

SQLSTATE_CLASS: dict[str, Fault] = {"22": Fault.DATA, "28": Fault.PERMISSION}
"""Whole classes, for codes that `SQLSTATE` does not name."""

MYSQL: dict[int, Fault] = {
    int(code): fault
    for code, fault in _table(
        {
            Fault.DUPLICATE_KEY: "1022 1062 1169 1557 1586 1761 1762 1859",
            Fault.FOREIGN_KEY: "1216 1217 1451 1452",
            Fault.NOT_NULL: "1048 1263 1364",
            Fault.CHECK: "3819 4025",
            Fault.DATA: "1264 1265 1292 1366 1367 1406 1411 1416 1525 1690 3140 3156 4078",
            Fault.NO_SUCH_TABLE: "1051 1109 1146 1932",
            Fault.NO_SUCH_COLUMN: "1054 1072",
            Fault.NO_SUCH_DATABASE: "1008 1046 1049",
            Fault.ALREADY_EXISTS: "1007 1050 1060 1061 1304 1359 1826 3822",
            Fault.SYNTAX: "1064 1065 1149",
            Fault.PERMISSION: "1044 1045 1130 1131 1132 1133 1142 1143 1227 1251 1370 1410 1419 1698 1820 1862 3118",
            Fault.RAISED: "1644",
            # 1020: MariaDB with innodb_snapshot_isolation (default since 11.6). 3101: MySQL Group
            # Replication.
            Fault.SERIALIZATION: "1020 3101",
            Fault.DEADLOCK: "1213 1614 3058 3132",
            Fault.LOCK_TIMEOUT: "1205 1613 3572",
            Fault.STATEMENT_TIMEOUT: "1969 3024",
            Fault.CANCELLED: "1317",
            # 2xxx are the client library's. 4031 is MySQL's idle timeout; on MariaDB CREATE TRIGGER ...
            # FOLLOWS an unknown trigger has the same number.
            Fault.DISCONNECT: "1152 1156 1157 1158 1159 1160 1161 1184 1927 2006 2013 2014 2027 2045 2048"
            " 2055 3169 4031",
            # 1047: a Galera node that is not primary or not synced.
            Fault.UNAVAILABLE: "1040 1042 1047 1053 1077 1079 1129 1203 1226 2002 2003 2005 3032 3100",
            Fault.READ_ONLY: "1036 1290 1792 1836",
            Fault.RESOURCES: "1021 1037 1038 1041 1114 1135 1206",
            Fault.SCHEMA_CHANGED: "1412 1615",
        }
    ).items()
}
"""MySQL's, MariaDB's and Galera's error numbers; PyMySQL, mysqlclient and aiomysql tell no SQLSTATE."""

SQLITE: dict[int, Fault] = {
    int(code): fault
    for code, fault in _table(
        {
            Fault.DUPLICATE_KEY: "1555 2067 2579",
            Fault.FOREIGN_KEY: "787",
            Fault.NOT_NULL: "1299",
            Fault.CHECK: "275",
            Fault.DATA: "3091 18 20",
            Fault.PERMISSION: "3 23",
            Fault.RAISED: "1811",
            Fault.SERIALIZATION: "517",
            Fault.LOCK_TIMEOUT: "5 6",
            Fault.CANCELLED: "9",
            Fault.UNAVAILABLE: "14",
            Fault.READ_ONLY: "8",
            Fault.RESOURCES: "7 13",
            Fault.SCHEMA_CHANGED: "17",
        }
    ).items()
}
"""SQLite's result codes; an extended code that is not named counts as its primary one (the low byte)."""
