"""What a project says to Contraflow in its configuration: ``[contraflow]`` of alembic.ini or ``[tool.contraflow]``
of pyproject.toml.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from alembic.config import Config

from contraflow.engine.report import Options
from contraflow.problems import Problem, ProblemError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["KEYS", "Settings", "Through", "read_settings"]

Through = Literal["verify", "contract"]

KEYS: dict[str, str] = {
    "through": "how far an upgrade goes: verify (default), or contract for fresh databases, tests and development",
    "profile": "the file that `contraflow plan --record` wrote, for `alembic upgrade --sql`; relative to this one",
    "journal_schema": "the schema of the journal's tables; the connection's default if not given",
    "lock_timeout": "seconds a writer may queue behind a phase (default 0.25)",
    "lock_patience": "seconds a phase goes on trying for its lock (default 600)",
    "latency_budget": "seconds a backfill's batch may take (default 0.1)",
    "batch_size": "rows in the first batch of a backfill (default 1000)",
    "max_batch_size": "rows in the largest batch of a backfill (default 20000)",
    "pause": "seconds of rest after each batch of a backfill (default 0)",
    "replicas": "URLs of replicas, separated by spaces, whose lag a backfill watches",
    "max_lag": "seconds a watched replica may be behind before a backfill pauses (default 10)",
    "lease": "seconds until the lock of a dead runner elsewhere is taken over (default 30)",
    "node_ttl": "seconds without a heartbeat after which a node counts as gone (default 30)",
}
"""Every key of the section and its meaning."""

_OPTION_OF = {"journal_schema": "schema"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration, read and checked."""

    through: Through = "verify"
    profile: Path | None = None
    options: Options = field(default_factory=Options)


def read_settings(config: Config, arguments: Mapping[str, object] | None = None) -> Settings:
    """Read the configuration files of ``config``; ``-x contraflow.KEY=VALUE`` among ``arguments`` counts for more.

    Where both files have the section, a key of alembic.ini counts for more, as with Alembic's own keys.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF307``, one problem for each key that is unknown or
    not valid.
    """
    found: dict[str, tuple[object, str]] = {}
    toml = Path(config.toml_file_name) if config.toml_file_name else None
    ini = Path(config.config_file_name) if config.config_file_name else None
    if toml is not None and toml.exists():
        for key, value in _toml_section(toml).items():
            found[key] = value, f"[tool.contraflow] of {toml.name}"
    if config.file_config.has_section("contraflow"):
        # ConfigParser mixes its defaults (``here``) into every section.
        given = set(config.file_config.options("contraflow")) - set(config.file_config.defaults())
        for key in given:
            place = f"[contraflow] of {ini.name if ini else 'the configuration'}"
            found[key] = config.file_config.get("contraflow", key), place
    for key, value in (arguments or {}).items():
        if key.startswith("contraflow."):
            found[key.removeprefix("contraflow.")] = value, "an -x argument"
    here = next((file.absolute().parent for file in (ini, toml) if file is not None), Path.cwd())
    return _checked(found, here)


def _toml_section(path: Path) -> Mapping[str, object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ProblemError(
            Problem(code="CF307", what=f"{path} is not valid TOML: {error}.", instead="correct the file.")
        ) from error
    section = document.get("tool", {}).get("contraflow", {})
    if not isinstance(section, Mapping):
        raise ProblemError(
            Problem(code="CF307", what=f"tool.contraflow of {path} is not a table.", instead="write [tool.contraflow].")
        )
    return section


def _checked(found: Mapping[str, tuple[object, str]], here: Path) -> Settings:
    problems: list[Problem] = []
    settings = Settings()
    options: dict[str, Any] = {}
    types = {one.name: type(getattr(settings.options, one.name)) for one in fields(Options)}
    for key, (value, place) in sorted(found.items()):
        if key not in KEYS:
            problems.append(
                Problem(
                    code="CF307",
                    what=f"{place} has the unknown key {key!r}.",
                    why="a mistyped key would silently leave its default in force.",
                    instead=f"use one of: {', '.join(KEYS)}.",
                )
            )
        elif key == "through":
            if value == "verify" or value == "contract":
                settings = replace(settings, through=value)
            else:
                problems.append(_invalid(key, value, place, "verify or contract"))
        elif key == "profile":
            settings = replace(settings, profile=here / str(value))
        elif key == "journal_schema":
            options[_OPTION_OF[key]] = str(value) or None
        elif key == "replicas":
            options[key] = tuple(value if isinstance(value, list) else str(value).split())
        else:
            number = _number(value, types[key])
            if number is None or (number == 0 and key != "pause"):
                problems.append(_invalid(key, value, place, "a positive number"))
            else:
                options[key] = number
    ProblemError.raise_any(problems)
    try:
        return replace(settings, options=replace(settings.options, **options))
    except ValueError as error:
        raise ProblemError(
            Problem(code="CF307", what=f"the configuration contradicts itself: {error}.", instead="correct it.")
        ) from error


def _number(value: object, kind: type) -> float | int | None:
    try:
        number = int(str(value)) if kind is int else float(str(value))
    except ValueError:
        return None
    # Not a number compares as False with everything.
    return number if 0 <= number < float("inf") else None


def _invalid(key: str, value: object, place: str, wanted: str) -> Problem:
    return Problem(
        code="CF307",
        what=f"{place}: {key} = {value!r} is not {wanted}.",
        instead=f"{key} is {KEYS[key]}.",
    )
