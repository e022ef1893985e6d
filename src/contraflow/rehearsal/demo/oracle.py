"""What every row must look like in both releases' shapes, worked out by hand.

The load driver tells the oracle each write that a node acknowledged; the oracle says what either release must
read from then on. It shares no code with the library's lenses: the images below are written down a second
time, in plain Python. Each user and project is written by one client at a time, so there is one right answer,
except for the moment at which the database itself noted something: the oracle knows only its bounds until
somebody has read it, and holds to it from then on.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Difference", "ProjectModel", "Since", "TokenModel", "UserModel", "utc_now"]

CLOCK_SLACK = dt.timedelta(seconds=1.5)
"""A server's timestamp may be cut or rounded to whole seconds."""
LAST_WRITES = 4


def utc_now() -> dt.datetime:
    """The present time in UTC, without a zone: what the example service stores."""
    return dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)


@dataclass(frozen=True, kw_only=True)
class Since:
    """A moment that the database noted by itself, at or after ``earliest``."""

    earliest: dt.datetime

    def allows(self, moment: object) -> bool:
        """Whether ``moment`` lies between ``earliest`` and now."""
        return isinstance(moment, dt.datetime) and self.earliest - CLOCK_SLACK <= moment <= utc_now() + CLOCK_SLACK

    def __str__(self) -> str:
        return f"a time since {self.earliest.isoformat(sep=' ', timespec='seconds')}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that is not what the last write made it."""

    subject: str
    field: str
    expected: object
    found: object
    where: str
    writes: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.subject}: {self.field} is {_show(self.found)}, not {_show(self.expected)} ({self.where})"
        return f"{text}; written: {' | '.join(self.writes)}" if self.writes else text


def _show(value: object) -> str:
    return str(value) if isinstance(value, Since) else repr(value)


@dataclass(kw_only=True)
class _Model:
    """A row that the oracle follows. ``tainted``: a write failed, so nothing is known about it any more."""

    id: str
    name: str
    tainted: bool = False
    writes: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_WRITES))

    def shape(self, release: int) -> dict[str, object]:
        """The row's columns as ``release`` must read them."""
        raise NotImplementedError

    def note(self, release: int, body: Mapping[str, object], verb: str) -> None:
        """Keep ``body`` for the explanation of a difference."""
        fields = ", ".join(f"{key}={value!r}" for key, value in body.items() if key != "password")
        self.writes.append(f"{verb} by release {release}: {fields}")

    def compare(self, release: int, found: Mapping[str, Any], where: str) -> list[Difference]:
        """Where ``found``, read in the shape of ``release``, differs from what it must be."""
        return [
            Difference(
                subject=f"{type(self).__name__.removesuffix('Model').lower()} {self.name}",
                field=name,
                expected=expected,
                found=found.get(name, "<missing>"),
                where=where,
                writes=tuple(self.writes),
            )
            for name, expected in self.shape(release).items()
            if not self._equal(name, expected, found.get(name, "<missing>"))
        ]

    def _equal(self, _name: str, expected: object, found: object) -> bool:
        return type(expected) is type(found) and expected == found


@dataclass(kw_only=True)
class UserModel(_Model):
    """One user, in both shapes at once."""

    full_name: str = ""
    first_name: str = ""
    last_name: str = ""
    email: str | None = None
    enabled: bool = True
    disabled_at: dt.datetime | Since | None = None
    quota: str | None = None
    quota_limit: int | None = None
    password: str | None = None

    def shape(self, release: int) -> dict[str, object]:
        """The user's columns as ``release`` must read them."""
        common: dict[str, object] = {"id": self.id, "name": self.name}
        if release == 1:
            return {
                **common,
                "full_name": self.full_name,
                "email_addr": self.email,
                "enabled": self.enabled,
                "quota": self.quota,
            }
        return {
            **common,
            "first_name": self.first_name,
            "last_name": self.last_name,
            "email": self.email,
            "disabled_at": self.disabled_at,
            "quota_limit": self.quota_limit,
        }

    def write(self, release: int, body: Mapping[str, Any], began: dt.datetime, verb: str = "update") -> None:
        """A write of ``body`` by ``release``, sent at ``began``, was acknowledged.

        A field that keeps its value was not written: the database cannot see it.
        """
        self.note(release, body, verb)
        if release == 1:
            self._write_1(body, began)
        else:
            self._write_2(body)

    def _write_1(self, body: Mapping[str, Any], began: dt.datetime) -> None:
        self.email = body.get("email_addr", self.email)
        if body.get("full_name", self.full_name) != self.full_name:
            self.full_name = body["full_name"]
            self.first_name, _, self.last_name = self.full_name.partition(" ")
        if body.get("enabled", self.enabled) != self.enabled:
            self.enabled = body["enabled"]
            self.disabled_at = None if self.enabled else Since(earliest=began)
        if body.get("quota", self.quota) != self.quota:
            self.quota = body["quota"]
            self.quota_limit = None if self.quota is None else int(self.quota)

    def _write_2(self, body: Mapping[str, Any]) -> None:
        self.email = body.get("email", self.email)
        names = (body.get("first_name", self.first_name), body.get("last_name", self.last_name))
        if names != (self.first_name, self.last_name):
            self.first_name, self.last_name = names
            self.full_name = f"{self.first_name} {self.last_name}".strip(" ")[:200]
        if "disabled_at" in body:
            sent = body["disabled_at"]
            self.disabled_at = None if sent is None else dt.datetime.fromisoformat(sent)
            self.enabled = sent is None
        if body.get("quota_limit", self.quota_limit) != self.quota_limit:
            self.quota_limit = body["quota_limit"]
            self.quota = None if self.quota_limit is None else str(self.quota_limit)

    def _equal(self, name: str, expected: object, found: object) -> bool:
        if isinstance(expected, Since):
            if not expected.allows(found):
                return False
            if isinstance(found, dt.datetime):
                self.disabled_at = found
            return True
        return super()._equal(name, expected, found)


@dataclass(kw_only=True)
class ProjectModel(_Model):
    """One project, in both shapes at once."""

    description: str | None = None
    cost_code: str = "none"
    handle: str = ""
    roles: dict[str, set[str]] = field(default_factory=dict)
    """The roles granted, by the user's id."""

    def shape(self, release: int) -> dict[str, object]:
        """The project's columns as ``release`` must read them."""
        own = {"cost_code": self.cost_code} if release == 1 else {"handle": self.handle}
        return {"id": self.id, "name": self.name, "description": self.description, **own}

    def create(self, release: int, body: Mapping[str, Any]) -> None:
        """The project was created by ``release``: what that release does not know gets its declared value."""
        self.note(release, body, "insert")
        self.description = body.get("description")
        self.cost_code = body.get("cost_code", "none")
        self.handle = body.get("handle", self.name.lower())  # names are ASCII

    def update(self, release: int, body: Mapping[str, Any]) -> None:
        """A write of ``body`` by ``release`` was acknowledged; the other release's column stays as it is."""
        self.note(release, body, "update")
        self.description = body.get("description", self.description)
        self.cost_code = body.get("cost_code", self.cost_code)
        self.handle = body.get("handle", self.handle)


@dataclass(kw_only=True)
class TokenModel:
    """One token that was issued."""

    token: str
    user: UserModel
    project: ProjectModel | None
    revoked: bool = False
