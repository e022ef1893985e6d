"""What the clients write: bodies in the shape of either release, with values that break careless triggers."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from contraflow.rehearsal.demo.oracle import UserModel, utc_now

__all__ = ["change_project", "change_user", "new_project", "new_user", "seed_user"]

_FIRST = (
    "Ann",
    "ann",
    "ANN",
    "Bo",
    "Cher",
    "José",
    "Ørjan",
    "Zoë",
    "李",
    "O'Neil",
    "100%",
    "%s",
    "a\\b",
    "Łucja",
    "_",
)
_LAST = (
    "Lee",
    "lee",
    "LEE",
    "van der Berg",
    "d'Arc",
    "Åström",
    "Smith-Jones",
    "  ",
    "Ünal ",
    '"Q"',
    "\\",
    "Müller",
)
_HOSTS = ("example.org", "Example.org", "mail.example.net")


def seed_user(rng: random.Random) -> dict[str, Any]:
    """A user of release 1, all columns given."""
    return {"email_addr": None, "quota": None, **new_user(rng, 1)}


def new_user(rng: random.Random, release: int) -> dict[str, Any]:
    """The body of a new user, without a name; optional fields are sometimes left out."""
    body = _user(rng, release)
    required = "full_name" if release == 1 else "first_name"
    for key in [key for key in body if key != required]:
        if rng.random() < 0.25:
            del body[key]
    # What the service makes of a field that was left out, which is what the row then holds.
    return {**({"enabled": True} if release == 1 else {"last_name": ""}), **body}


def change_user(rng: random.Random, release: int, user: UserModel) -> dict[str, Any]:
    """Some fields of ``user``, now and then with the value they have."""
    body = _user(rng, release)
    chosen = rng.sample(sorted(body), rng.randint(1, len(body)))
    shape = user.shape(release)
    repeat = rng.random() < 0.15
    change: dict[str, Any] = {}
    for key in chosen:
        present = shape[key]
        repeatable = repeat and (present is None or isinstance(present, (str, int)))
        change[key] = present if repeatable else body[key]
    return change


def new_project(rng: random.Random, release: int) -> dict[str, Any]:
    """The body of a new project, without a name."""
    return {"description": _description(rng), **_project(rng, release)}


def change_project(rng: random.Random, release: int) -> dict[str, Any]:
    """Some fields of a project."""
    both = {"description": _description(rng), **_project(rng, release)}
    return {key: both[key] for key in rng.sample(sorted(both), rng.randint(1, len(both)))}


def _user(rng: random.Random, release: int) -> dict[str, Any]:
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    email = rng.choice((None, f"{rng.randrange(1000)}@{rng.choice(_HOSTS)}"))
    quota = rng.choice((None, rng.randrange(1_000_000)))
    if release == 1:
        full = rng.choice((f"{first} {last}", first, f"{first}  {last}", f" {first}"))
        spelled = None if quota is None else rng.choice((str(quota), f"00{quota}"))
        return {
            "full_name": full,
            "email_addr": email,
            "enabled": rng.random() < 0.7,
            "quota": spelled,
        }
    ago = dt.timedelta(seconds=rng.randrange(100_000_000))
    disabled = None if rng.random() < 0.7 else (utc_now() - ago).replace(microsecond=0).isoformat()
    return {
        "first_name": rng.choice((first, f"{first} {rng.choice(_FIRST)}")),
        "last_name": rng.choice((last, last, "x")),
        "email": email,
        "disabled_at": disabled,
        "quota_limit": quota,
    }


def _project(rng: random.Random, release: int) -> dict[str, Any]:
    return {"cost_code": f"C{rng.randrange(1000)}"} if release == 1 else {"handle": f"h-{rng.randrange(1000)}"}


def _description(rng: random.Random) -> str | None:
    return rng.choice((None, "", "50 % of 'it'", "back\\slash", f"no. {rng.randrange(100)}")) or None
