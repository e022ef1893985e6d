"""The adapter comes from what the server says of itself, and from nothing else."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import dialects
from contraflow.dialects import Adapter, Profile
from contraflow.dialects.cockroachdb import CockroachDBAdapter
from contraflow.dialects.galera import GaleraAdapter
from contraflow.dialects.mariadb import MariaDBAdapter
from contraflow.dialects.mysql import MySQLAdapter
from contraflow.dialects.postgresql import PostgreSQLAdapter
from contraflow.dialects.sqlite import SQLiteAdapter
from contraflow.problems import ProblemError


class Answers:
    """Stands for a connection: a dialect's name, and canned answers by the beginning of the statement."""

    def __init__(self, name: str, answers: dict[str, Any]) -> None:
        self.dialect = SimpleNamespace(name=name)
        self.answers = answers

    def exec_driver_sql(self, statement: str, *_arguments: object, **_options: object) -> Any:
        for start, answer in self.answers.items():
            if statement.startswith(start):
                return answer if isinstance(answer, list) else Scalar(answer)
        raise AssertionError(statement)


class Scalar:
    """A result of one value."""

    def __init__(self, value: object) -> None:
        self.value = value

    def scalar(self) -> object:
        return self.value

    scalar_one = scalar


COCKROACH = "CockroachDB CCL v25.2.3 (x86_64-pc-linux-gnu, built 2025/07/01 00:00:00, go1.23.7)"


@pytest.mark.parametrize(
    ("url", "answers", "adapter", "version"),
    [
        (
            "postgresql",
            {"SELECT version": "PostgreSQL 16.3", "SHOW server_version_num": "160003"},
            PostgreSQLAdapter,
            (16, 3),
        ),
        ("postgresql", {"SELECT version": COCKROACH}, CockroachDBAdapter, (25, 2, 3)),
        ("cockroachdb", {"SELECT version": COCKROACH}, CockroachDBAdapter, (25, 2, 3)),
        ("mysql", {"SELECT VERSION": "8.0.36-0ubuntu0.22.04.1", "SHOW VARIABLES": []}, MySQLAdapter, (8, 0, 36)),
        ("mysql", {"SELECT VERSION": "9.7.4-2", "SHOW VARIABLES": []}, MySQLAdapter, (9, 7, 4)),
        ("mysql", {"SELECT VERSION": "11.8.2-MariaDB-log", "SHOW VARIABLES": []}, MariaDBAdapter, (11, 8, 2)),
        ("mysql", {"SELECT VERSION": "5.5.5-10.11.18-MariaDB", "SHOW VARIABLES": []}, MariaDBAdapter, (10, 11, 18)),
        (
            "mysql",
            {"SELECT VERSION": "10.11.18-MariaDB", "SHOW VARIABLES": [("wsrep_on", "ON")]},
            GaleraAdapter,
            (10, 11, 18),
        ),
        ("sqlite", {"SELECT sqlite_version": "3.45.1", "PRAGMA journal_mode": "wal"}, SQLiteAdapter, (3, 45, 1)),
    ],
)
def test_the_server_is_asked_not_the_url(
    url: str, answers: dict[str, Any], adapter: type[Adapter], version: tuple[int, ...]
) -> None:
    connection = Answers(url, {**answers, "SELECT current_schema": "public", "SELECT DATABASE": "app"})
    found = dialects.choose(connection)  # type: ignore[arg-type]
    assert type(found) is adapter
    assert found.profile.version == version
    assert type(dialects.for_profile(Profile.from_dict(found.profile.as_dict()))) is adapter


@pytest.mark.parametrize(
    ("product", "version"),
    [
        ("postgresql", (12, 22)),
        ("cockroachdb", (25, 2, 1)),
        ("mysql", (8, 0, 28)),
        ("mariadb", (10, 5, 27)),
        ("sqlite", (3, 34, 1)),
        ("oracle", (23, 0)),
    ],
)
def test_what_is_too_old_or_unknown_is_refused(product: str, version: tuple[int, ...]) -> None:
    with pytest.raises(ProblemError, match="CF203"):
        dialects.for_profile(Profile(product=product, version=version))


def test_a_server_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ProblemError, match="CF203: there is no adapter for odd"):
        dialects.choose(Answers("odd", {}))  # type: ignore[arg-type]


def test_an_installed_adapter_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Special(SQLiteAdapter):
        """Somebody's own."""

    class Point:
        """Stands for an entry point."""

        def load(self) -> type[Adapter]:
            return Special

    def points(*, group: str) -> list[Point]:
        assert group == "contraflow.dialects"
        return [Point()]

    monkeypatch.setattr(metadata, "entry_points", points)
    dialects.adapters.cache_clear()
    try:
        with sa.create_engine("sqlite://", poolclass=sa.NullPool).connect() as connection:
            assert type(dialects.choose(connection)) is Special
    finally:
        dialects.adapters.cache_clear()
