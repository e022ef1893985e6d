"""A user's migration environment from outside: what its ``env.py`` connects to, and Alembic's commands run with
Changes.
"""

from __future__ import annotations

import configparser
import os
import socket
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine.interfaces import Dialect

from contraflow.alembic.change import change_of
from contraflow.alembic.discovery import to_upgrade
from contraflow.alembic.place import refuse_another_place
from contraflow.alembic.settings import Settings, read_settings
from contraflow.engine.connect import refuse_missing_name
from contraflow.problems import ContraflowError, Problem, ProblemError

__all__ = ["Database", "Environment"]


@dataclass(frozen=True, kw_only=True)
class Database:
    """What ``env.py`` connects to, and the revisions it stands at."""

    engine: sa.Engine
    heads: tuple[str, ...]


class Environment:
    """One migration environment: its configuration files, its revisions, its ``env.py``.

    ``config_file`` is an alembic.ini or a pyproject.toml; without one, ``$ALEMBIC_CONFIG`` and then the current
    folder are looked at as Alembic does. ``url`` takes the place of ``sqlalchemy.url``, which ``env.py`` must use.
    ``arguments`` are Alembic's ``-x``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF301`` if there is no environment, ``CF307`` if its
    configuration is not valid.
    """

    def __init__(
        self,
        config_file: str | os.PathLike[str] | None = None,
        *,
        section: str = "alembic",
        url: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        ini, toml = _files(config_file)
        # What alembic's own command line would have parsed: env.py reads -x from it.
        options = Namespace(x=list(arguments) or None, name=section)
        self.config = Config(file_=ini, toml_file=toml, ini_section=section, cmd_opts=options)
        self.url = url
        self.compared = False
        """Whether env.py's connection is known to find the tables that a new one of its engine finds."""
        with _reported(), _readable(ini or toml):
            if self.config.get_alembic_option("script_location") is None:
                raise _nowhere(f"{ini or toml} names no script_location.")
            self.directory = ScriptDirectory.from_config(self.config)
        if url is not None:
            self.config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        with _readable(ini or toml):
            self.settings: Settings = read_settings(self.config, _pairs(arguments))

    # -- questions -------------------------------------------------------------------------------------------

    def database(self, *, standing: bool = False) -> Database:
        """Run ``env.py`` as ``alembic current`` does, and see what it connects to. Nothing is written; but connecting
        makes an SQLite file that is not there, which with ``standing`` is ``CF201``.

        Raises :class:`~contraflow.problems.ProblemError`: ``CF201`` if it cannot connect, ``CF301`` if it connects
        to several databases, to none, or not to the one that was asked for, or looks for tables elsewhere than a new
        connection would (compared once).
        """
        met: list[Database] = []

        def look(heads: object, context: MigrationContext) -> list[Any]:
            if context.connection is None:
                raise _nowhere("env.py configures Alembic without a connection.")
            if not self.compared:
                refuse_another_place(context.connection)
                self.compared = True
            met.append(Database(engine=context.connection.engine, heads=tuple(cast("tuple[str, ...]", heads))))
            return []

        with _no_new_files() if standing else nullcontext():
            self._run(look, dont_mutate=True)
        places = {_place(one.engine.url) for one in met}
        if not met:
            raise _nowhere("env.py ran no migrations: it does not call context.run_migrations().")
        if len(places) > 1:
            raise _nowhere("env.py connects to several databases.", "choose one with --url or -x.")
        if self.url is not None and _place(sa.make_url(self.url)) not in places:
            other = met[0].engine.url.render_as_string(hide_password=True)
            raise ProblemError(
                Problem(
                    code="CF301",
                    what=f"env.py connects to {other}, not to the URL that was given.",
                    why="the revisions would move in one database and the tables change in another.",
                    instead='let env.py take its URL from config.get_main_option("sqlalchemy.url"),\n'
                    "or give the URL in the way env.py expects it.",
                )
            )
        return met[0]

    def revision(self, name: str) -> str | None:
        """The full name of a revision (also ``head``, ``base``, a branch's, a unique beginning); None for ``base``.

        Raises :class:`~contraflow.problems.ProblemError` with ``CF302`` if there is no such revision or more than
        one.
        """
        with _reported():
            found = self.directory.get_revisions(name)
        if len(found) > 1:
            names = ", ".join(script.revision for script in found)
            raise ProblemError(
                Problem(
                    code="CF302",
                    what=f"{name} means several revisions: {names}.",
                    why="an upgrade goes from one revision to one other.",
                    instead="name one: --revision OLD:NEW; or merge them: alembic merge heads.",
                )
            )
        return found[0].revision if found and found[0] is not None else None

    def has_changes(self) -> bool:
        """Whether any of the revisions is a Change. Raises ``CF302`` if Alembic cannot read them."""
        with _reported():
            return any(change_of(script) is not None for script in self.directory.walk_revisions())

    def waiting(self, heads: Sequence[str], target: str) -> list[Script]:
        """The revisions that ``alembic upgrade target`` would run from ``heads``, in order. Raises ``CF302`` if it
        would not.
        """
        with _reported():
            return to_upgrade(self.directory, heads, self.revision(target) or "base")

    # -- commands ---------------------------------------------------------------------------------------------------

    def upgrade(self, target: str, **attributes: Any) -> None:
        """``alembic upgrade target``. ``attributes`` are for the Changes it meets
        (:mod:`contraflow.alembic.running`).
        """
        self._command(command.upgrade, target, attributes)

    def downgrade(self, target: str, **attributes: Any) -> None:
        """``alembic downgrade target``, likewise."""
        self._command(command.downgrade, target, attributes)

    def stamp(self, revision: str) -> None:
        """``alembic stamp revision``: the branches it belongs to move there, others stay."""
        self._command(command.stamp, revision, {})

    def _command(self, verb: Callable[..., None], target: str, attributes: Mapping[str, Any]) -> None:
        self.config.attributes.update(attributes)
        try:
            with _reported():
                verb(self.config, target)
        finally:
            for name in attributes:
                del self.config.attributes[name]

    def _run(self, function: Callable[[object, MigrationContext], list[Any]], **options: Any) -> None:
        with (
            _reported(),
            EnvironmentContext(self.config, self.directory, fn=function, as_sql=False, **options),
        ):
            self.directory.run_env()


def _files(given: str | os.PathLike[str] | None) -> tuple[str | None, str | None]:
    """The ini and the TOML file to read: the given one and its neighbour, each if it exists."""
    name = given or os.environ.get("ALEMBIC_CONFIG")
    if given is not None and not Path(given).exists():
        raise _nowhere(f"the configuration file {os.fspath(given)} does not exist.")
    path = Path(name) if name else Path("alembic.ini")
    if path.name == "pyproject.toml":
        ini, toml = path.with_name("alembic.ini"), path
    else:
        ini, toml = path, path.with_name("pyproject.toml")
    if not ini.exists() and not toml.exists():
        raise _nowhere("there is no alembic.ini and no pyproject.toml here.")
    # Alembic reads a missing TOML file as an empty one, but not a missing ini.
    return (str(ini) if ini.exists() else None), str(toml)


@contextmanager
def _no_new_files() -> Iterator[None]:
    """``CF201`` instead of a new SQLite file. Any engine that env.py makes is asked: its URL may stand anywhere."""

    def look(dialect: Dialect, _record: object, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        name = arguments[0] if arguments else named.get("database")
        if dialect.name == "sqlite" and isinstance(name, str):
            refuse_missing_name(name)

    sa.event.listen(sa.Engine, "do_connect", look)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "do_connect", look)


@contextmanager
def _readable(name: str | None) -> Iterator[None]:
    """``CF307`` for what Python's own readers of configurations say of the file."""
    try:
        yield
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ProblemError(
            Problem(code="CF307", what=f"{name} cannot be read: {reason}.", instead="correct the file.")
        ) from error


def _pairs(arguments: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (argument.partition("=") for argument in arguments)}


def _place(url: sa.URL) -> tuple[str, str | None, int | None, str | None]:
    """What tells one database from another, whatever driver or account reaches it."""
    database = url.database
    if url.get_backend_name() == "sqlite" and database and not database.startswith("file:"):
        database = os.path.abspath(database)
    return _family(url), url.host, url.port, database


def _family(url: sa.URL) -> str:
    return {"mariadb": "mysql"}.get(url.get_backend_name(), url.get_backend_name())


@contextmanager
def _reported() -> Iterator[None]:
    """What Alembic and the database say about a user's project, as problems. Errors of the user's own code pass."""
    try:
        yield
    except CommandError as error:
        if isinstance(error, ContraflowError):
            raise
        raise ProblemError(
            Problem(code="CF302", what=f"Alembic says: {str(error).rstrip('.')}.", instead="see alembic history.")
        ) from error
    except KeyError as error:
        # Alembic warns of a revision that is not there, and stumbles over it.
        if not _raised_in(error, "_revision_map", package="alembic."):
            raise
        raise ProblemError(
            Problem(
                code="CF302",
                what=f"a revision names {error} as the one before it (down_revision), which does not exist.",
                instead="correct its down_revision.",
            )
        ) from error
    except sa.exc.OperationalError as error:
        # A failed connect has no statement yet.
        if error.statement is not None:
            raise
        raise _unreachable(error.orig or error) from error
    except (ConnectionError, socket.gaierror) as error:
        # asyncpg's connect errors are not wrapped by SQLAlchemy.
        raise _unreachable(error) from error
    except (sa.exc.NoSuchModuleError, sa.exc.ArgumentError) as error:
        if not _raised_in(error, "make_url", "_parse_url", "get_dialect", "_get_entrypoint"):
            raise
        raise _nowhere(
            "env.py has no usable database URL.", "set sqlalchemy.url in the configuration, or give --url."
        ) from error
    except ImportError as error:
        if not _raised_in(error, "import_dbapi"):
            raise
        raise ProblemError(
            Problem(
                code="CF204",
                what=f"env.py's database driver is not installed: {error}.",
                instead="install it, or name another one in the URL (postgresql+psycopg://, mysql+pymysql:// ...).",
            )
        ) from error


def _raised_in(error: BaseException, *functions: str, package: str = "sqlalchemy.") -> bool:
    """Whether one of the package's functions of these names was at work: the same error of the user's own code is
    not ours.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(
        frame.f_code.co_name in functions and frame.f_globals.get("__name__", "").startswith(package)
        for frame in frames
    )


def _unreachable(error: BaseException) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF201",
            what=f"env.py cannot connect to its database: {str(error).strip()}",
            instead="start the server, or correct the URL (sqlalchemy.url, --url or $CONTRAFLOW_URL).",
        )
    )


def _nowhere(what: str, instead: str = "") -> ProblemError:
    return ProblemError(
        Problem(
            code="CF301",
            what=what,
            instead=instead
            or "name the configuration with -c FILE (alembic.ini or pyproject.toml), or run: alembic init alembic.",
        )
    )
