"""The tables as they are, by plain SQL: seeding them, and holding every row against the oracle."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from contraflow.rehearsal.demo import values
from contraflow.rehearsal.demo.oracle import Difference, ProjectModel, TokenModel, UserModel, utc_now

__all__ = ["check_leftovers", "check_rows", "seed"]

_USERS = {
    1: ("id", "name", "full_name", "email_addr", "enabled", "quota"),
    2: ("id", "name", "first_name", "last_name", "email", "disabled_at", "quota_limit"),
}
_PROJECTS = {1: ("id", "name", "description", "cost_code"), 2: ("id", "name", "description", "handle")}
_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "enabled": sa.Boolean(),
    "disabled_at": sa.DateTime(),
    "created_at": sa.DateTime(),
}
_COLUMNS = {
    "users": ({"id", "name", "first_name", "last_name", "created_at"}, {"email", "disabled_at", "quota_limit"}),
    "credentials": ({"user_id", "password_hash", "changed_at"}, set[str]()),
    "projects": ({"id", "name", "handle", "created_at"}, {"description"}),
    "role_assignments": ({"project_id", "user_id", "role"}, set[str]()),
    "tokens": ({"id", "user_id", "issued_at", "expires_at"}, {"project_id", "revoked_at"}),
}
"""The columns of release 2, and no others: those that are NOT NULL, and those that are not."""
_TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
    "mysql": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = database()",
}


def _table(name: str, columns: Iterable[str]) -> sa.TableClause:
    return sa.table(name, *(sa.column(column, _TYPES.get(column, sa.String())) for column in columns))


def seed(engine: sa.Engine, *, users: int, rng: random.Random) -> tuple[list[UserModel], list[ProjectModel]]:
    """Fill release 1's tables with ``users`` users and a tenth as many projects, and return their models."""
    began = utc_now().replace(microsecond=0)
    people, projects, user_rows, project_rows = [], [], [], []
    for number in range(users):
        body = values.seed_user(rng)
        user = UserModel(id=_new_id(rng), name=f"user-{number:06}")
        user.write(1, body, began, verb="seeded")
        people.append(user)
        user_rows.append({**user.shape(1), "created_at": began})
    for number in range(max(30, users // 10)):
        project = ProjectModel(id=_new_id(rng), name=f"Project-{number:06}")
        project.create(1, values.new_project(rng, 1))
        projects.append(project)
        project_rows.append({**project.shape(1), "created_at": began})
    with engine.begin() as connection:
        connection.execute(sa.insert(_table("users", (*_USERS[1], "created_at"))), user_rows)
        connection.execute(sa.insert(_table("projects", (*_PROJECTS[1], "created_at"))), project_rows)
    return people, projects


def _new_id(rng: random.Random) -> str:
    return uuid.UUID(int=rng.getrandbits(128), version=4).hex


def check_rows(
    engine: sa.Engine,
    *,
    releases: Sequence[int],
    users: Sequence[UserModel],
    projects: Sequence[ProjectModel],
    tokens: Sequence[TokenModel],
    complete: bool,
    moment: str,
) -> tuple[int, list[Difference]]:
    """Hold every row, in the shape of each of ``releases``, against the models.

    Nobody may be writing meanwhile. ``complete`` says that no request failed: then a row without a model was
    written by nobody.

    :returns: how many values were looked at, and the differences.
    """
    looked_at, differences = 0, []
    with engine.connect() as connection:
        for release in releases:
            for name, models, columns in (
                ("users", users, _USERS[release]),
                ("projects", projects, _PROJECTS[release]),
            ):
                where = f"table {name} in the shape of release {release}, {moment}"
                rows = connection.execute(sa.select(_table(name, columns))).mappings()
                found = {str(row["id"]): dict(row) for row in rows}
                looked_at += len(found) * len(columns)
                differences += _check_models(models, found, release, where, complete=complete)
        roles = {
            tuple(row)
            for row in connection.execute(sa.select(_table("role_assignments", ("project_id", "user_id", "role"))))
        }
        issued = {
            row.id: (row.user_id, row.project_id, row.revoked_at is not None)
            for row in connection.execute(sa.select(_table("tokens", ("id", "user_id", "project_id", "revoked_at"))))
        }
    expected_roles = {
        (project.id, user, role): True
        for project in projects
        if not project.tainted
        for user, granted in project.roles.items()
        for role in granted
    }
    expected_tokens = {
        hashlib.sha256(token.token.encode()).hexdigest(): (
            token.user.id,
            None if token.project is None else token.project.id,
            token.revoked,
        )
        for token in tokens
    }
    for what, expected, present in (
        ("role", expected_roles, dict.fromkeys(roles, True)),
        ("token", expected_tokens, issued),
    ):
        looked_at += len(present)
        differences += _check_keys(what, expected, present, moment, complete=complete)
    return looked_at, differences


def _check_models(
    models: Sequence[UserModel] | Sequence[ProjectModel],
    found: Mapping[str, Mapping[str, Any]],
    release: int,
    where: str,
    *,
    complete: bool,
) -> list[Difference]:
    differences: list[Difference] = []
    for model in models:
        if model.tainted:
            continue
        if model.id in found:
            differences += model.compare(release, found[model.id], where)
        else:
            differences.append(
                Difference(
                    subject=model.name,
                    field="row",
                    expected="present",
                    found="lost",
                    where=where,
                    writes=tuple(model.writes),
                )
            )
    if complete:
        known = {model.id for model in models}
        differences += [
            Difference(subject=key, field="row", expected="absent", found="present", where=where)
            for key in sorted(found.keys() - known)
        ]
    return differences


def _check_keys(
    what: str, expected: Mapping[Any, Any], present: Mapping[Any, Any], moment: str, *, complete: bool
) -> list[Difference]:
    keys = expected.keys() | present.keys() if complete else expected.keys()
    return [
        Difference(
            subject=f"{what} {key}",
            field="row",
            expected=expected.get(key, "absent"),
            found=present.get(key, "absent"),
            where=moment,
        )
        for key in sorted(keys)
        if expected.get(key) != present.get(key)
    ]


def check_leftovers(engine: sa.Engine) -> list[Difference]:
    """Whether the tables are release 2's exactly, and no trigger is left: to be asked after contract."""
    differences: list[Difference] = []
    inspector = sa.inspect(engine)
    for table, (required, optional) in _COLUMNS.items():
        columns = inspector.get_columns(table)
        for kind, expected, nullable in (
            ("NOT NULL columns", required, False),
            ("nullable columns", optional, True),
        ):
            found = sorted(column["name"] for column in columns if column["nullable"] is nullable)
            if found != sorted(expected):
                differences.append(_schema_difference(table, kind, sorted(expected), found))
    dialect = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
    with engine.connect() as connection:
        triggers = sorted(connection.exec_driver_sql(_TRIGGERS[dialect]).scalars())
    if triggers:
        differences.append(_schema_difference("database", "triggers", [], triggers))
    return differences


def _schema_difference(subject: str, field: str, expected: object, found: object) -> Difference:
    return Difference(
        subject=f"schema of {subject}", field=field, expected=expected, found=found, where="after contract"
    )
