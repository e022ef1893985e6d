"""What one release of the service brings: its models, and its shapes of a user and of a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

Body = Mapping[str, Any]


class BadRequestError(Exception):
    """The request's body does not say what this release can store."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release. The handlers in ``service`` are the same for all of them."""

    number: int
    user: type[Any]
    credential: type[Any]
    project: type[Any]
    assignment: type[Any]
    token: type[Any]
    show_user: Callable[[Any], dict[str, object]]
    fill_user: Callable[[Any, Body], None]
    may_log_in: Callable[[Any], bool]
    show_project: Callable[[Any], dict[str, object]]
    fill_project: Callable[[Any, Body], None]


def text(body: Body, field: str, *, limit: int, least: int = 1) -> str:
    """The text in ``field``, which must be there and have ``least`` to ``limit`` characters."""
    value = body.get(field)
    if not isinstance(value, str) or not least <= len(value) <= limit:
        raise BadRequestError(f"{field}: a text of {least} to {limit} characters is required")
    return value


def optional_text(body: Body, field: str, *, limit: int) -> str | None:
    return None if body.get(field) is None else text(body, field, limit=limit)


def now() -> datetime:
    """The time in UTC, in whole seconds: that is what every server's timestamp can hold."""
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
