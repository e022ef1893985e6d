"""Release 1: a user has one name, a flag and a quota in text; a project has a cost code."""

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
    full_name: Mapped[str] = mapped_column(sa.String(200))
    email_addr: Mapped[str | None] = mapped_column(sa.String(255))
    enabled: Mapped[bool]
    quota: Mapped[str | None] = mapped_column(sa.String(20))
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
    cost_code: Mapped[str] = mapped_column(sa.String(20))
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
        "full_name": user.full_name,
        "email_addr": user.email_addr,
        "enabled": user.enabled,
        "quota": user.quota,
    }


def fill_user(user: User, body: Body) -> None:
    if user.full_name is None or "full_name" in body:
        user.full_name = text(body, "full_name", limit=200, least=0)
    if "email_addr" in body:
        user.email_addr = optional_text(body, "email_addr", limit=255)
    if user.enabled is None or "enabled" in body:
        enabled = body.get("enabled", True)
        if not isinstance(enabled, bool):
            raise BadRequestError("enabled: true or false is required")
        user.enabled = enabled
    if "quota" in body:
        quota = optional_text(body, "quota", limit=9)
        if quota is not None and not (quota.isascii() and quota.isdigit()):
            raise BadRequestError("quota: digits are required")
        user.quota = quota


def may_log_in(user: User) -> bool:
    return user.enabled


def show_project(project: Project) -> dict[str, object]:
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "cost_code": project.cost_code,
    }


def fill_project(project: Project, body: Body) -> None:
    if "description" in body:
        project.description = optional_text(body, "description", limit=255)
    if project.cost_code is None or "cost_code" in body:
        project.cost_code = text(body, "cost_code", limit=20)


RELEASE = Release(
    number=1,
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
