"""Release 2: first and last name, the time of disabling, a quota that counts, project handles."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .release import BadRequestError, Body, Release, optional_text, text


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64), unique=True)
    first_name: Mapped[str] = mapped_column(sa.String(200))
    last_name: Mapped[str] = mapped_column(sa.String(200))
    email: Mapped[str | None] = mapped_column(sa.String(255))
    disabled_at: Mapped[datetime | None]
    quota_limit: Mapped[int | None] = mapped_column(sa.BigInteger())
    created_at: Mapped[datetime]


class Credential(Base):
    __tablename__ = "credentials"

    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    password_hash: Mapped[str] = mapped_column(sa.String(128))
    changed_at: Mapped[datetime]


class Project(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64), unique=True)
    description: Mapped[str | None] = mapped_column(sa.String(255))
    handle: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime]


class Assignment(Base):
    __tablename__ = "role_assignments"

    project_id: Mapped[str] = mapped_column(sa.ForeignKey("projects.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    role: Mapped[str] = mapped_column(sa.String(32), primary_key=True)


class Token(Base):
    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"))
    project_id: Mapped[str | None] = mapped_column(sa.ForeignKey("projects.id"))
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


def show_user(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "name": user.name,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "email": user.email,
        "disabled_at": None if user.disabled_at is None else user.disabled_at.isoformat(),
        "quota_limit": user.quota_limit,
    }


def fill_user(user: User, body: Body) -> None:
    if user.first_name is None or "first_name" in body:
        user.first_name = text(body, "first_name", limit=90, least=0)
    if user.last_name is None or "last_name" in body:
        user.last_name = text({"last_name": "", **body}, "last_name", limit=90, least=0)
    if "email" in body:
        user.email = optional_text(body, "email", limit=255)
    if "disabled_at" in body:
        user.disabled_at = _timestamp(body, "disabled_at")
    if "quota_limit" in body:
        quota = body["quota_limit"]
        if quota is not None and (type(quota) is not int or not 0 <= quota <= 999_999_999):
            raise BadRequestError("quota_limit: a number up to 999999999 is required")
        user.quota_limit = quota


def _timestamp(body: Body, field: str) -> datetime | None:
    value = body[field]
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadRequestError(f"{field}: a time in UTC like 2026-01-31T12:00:00 is required") from None
    if moment.tzinfo is not None:
        raise BadRequestError(f"{field}: a time in UTC without an offset is required")
    return moment.replace(microsecond=0)


def may_log_in(user: User) -> bool:
    return user.disabled_at is None


def show_project(project: Project) -> dict[str, object]:
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "handle": project.handle,
    }


def fill_project(project: Project, body: Body) -> None:
    if "description" in body:
        project.description = optional_text(body, "description", limit=255)
    if project.handle is None or "handle" in body:
        project.handle = text(body, "handle", limit=64)


RELEASE = Release(
    number=2,
    user=User,
    credential=Credential,
    project=Project,
    assignment=Assignment,
    token=Token,
    show_user=show_user,
    fill_user=fill_user,
    may_log_in=may_log_in,
    show_project=show_project,
    fill_project=fill_project,
)
