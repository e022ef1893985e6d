"""How an engine of an asynchronous driver connects, in the words of the synchronous driver of the same server.

Its URL is not all of it: ``connect_args`` and listeners of ``do_connect`` add TLS settings, passwords that change, the
schema to begin in. A connection without them might be a less safe one, or see other tables. So each argument has its
counterpart here, is known to matter to the asynchronous driver alone, or is refused.
"""

from __future__ import annotations

import inspect
import math
import ssl
import tempfile
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from contraflow.problems import Problem, ProblemError

__all__ = ["Arguments"]

# Of no meaning to another driver, or to connections that the engine keeps for its own statements.
_IGNORED: Mapping[str, frozenset[str]] = {
    "asyncpg": frozenset(
        {
            "command_timeout",
            "connection_class",
            "direct_tls",
            "loop",
            "max_cacheable_statement_size",
            "max_cached_statement_lifetime",
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "record_class",
            "statement_cache_size",
        }
    ),
    "psycopg": frozenset({"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}),
    "aiosqlite": frozenset({"check_same_thread", "factory", "iter_chunk_size", "loop"}),
    "aiomysql": frozenset({"auth_plugin", "autocommit", "conv", "cursorclass", "echo", "loop"}),
    "asyncmy": frozenset({"auth_plugin", "autocommit", "conv", "cursor_cls", "echo", "loop"}),
}
# By the same name in the synchronous driver.
_MYSQL = frozenset(
    {
        "charset",
        "client_flag",
        "connect_timeout",
        "host",
        "init_command",
        "local_infile",
        "password",
        "port",
        "program_name",
        "read_default_file",
        "read_default_group",
        "read_timeout",
        "server_public_key",
        "sql_mode",
        "unix_socket",
        "use_unicode",
        "user",
        "write_timeout",
    }
)
_SAME: Mapping[str, frozenset[str]] = {
    "asyncpg": frozenset({"krbsrvname", "passfile", "service", "target_session_attrs", "user"}),
    "aiosqlite": frozenset({"cached_statements", "detect_types", "isolation_level", "timeout", "uri"}),
    "aiomysql": _MYSQL,
    "asyncmy": _MYSQL,
}


class Arguments:
    """What an asynchronous engine gives to its driver beyond its URL, for the synchronous ``driver``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF301`` where that cannot be said.
    """

    def __init__(self, engine: sa.Engine, driver: str) -> None:
        self._engine = engine
        self._driver = driver
        self._authorities: Any = None  # an open file, which goes with this object

    def __call__(self) -> dict[str, Any]:
        """Named arguments for one connection. Calls the engine's listeners of ``do_connect``, as each of its own
        connections does: what they give may change.
        """
        dialect = self._engine.dialect
        _, plain = dialect.create_connect_args(self._engine.url)
        translated: dict[str, Any] = {}
        for name, value in self._given().items():
            if name in plain and plain[name] == value:
                continue
            translated |= self._translate(dialect.driver, name, value)
        return translated

    def _given(self) -> dict[str, Any]:
        # SQLAlchemy tells nobody what create_engine() was given: it stands in the function that connects. With creator=
        # or async_creator= that function is the user's.
        creator: Any = self._engine.pool._creator  # noqa: SLF001
        known: Mapping[str, Any] = {}
        if inspect.isfunction(creator) and creator.__module__ == "sqlalchemy.engine.create":
            known = inspect.getclosurevars(creator).nonlocals
        if "cparams" not in known:
            raise _untranslatable("by a function of its own (async_creator)")
        dialect = self._engine.dialect
        positional, named = list(dialect.create_connect_args(self._engine.url)[0]), dict(known["cparams"])
        for listener in dialect.dispatch.do_connect:
            try:
                made = listener(dialect, None, positional, named)
            except sa.exc.MissingGreenlet:
                raise _untranslatable('by a listener of "do_connect" that awaits') from None
            if made is not None:
                made.close()
                raise _untranslatable('by a listener of "do_connect" that makes the connection')
        return named

    def _translate(self, driver: str, name: str, value: Any) -> Mapping[str, Any]:
        if driver == "psycopg" and name not in _IGNORED[driver]:  # one library
            return {name: value}
        if name in _SAME.get(driver, ()):
            return {name: value}
        if name in _IGNORED.get(driver, ()):
            return {}
        if driver == "asyncpg" and (known := self._libpq(name, value)) is not None:
            return known
        if driver in ("aiomysql", "asyncmy") and name in ("db", "database"):
            return {"database": value}
        if driver in ("aiomysql", "asyncmy") and name == "ssl" and self._driver == "pymysql":
            return {"ssl": value}
        raise _untranslatable(f"with the argument {name}={type(value).__name__}(...) of {driver}")

    def _libpq(self, name: str, value: Any) -> Mapping[str, Any] | None:
        """An argument of asyncpg in libpq's words (manual, Parameter Key Words); None if there are none for it."""
        if name in ("timeout", "server_settings", "ssl") and value is None:
            return {}
        if name == "password":
            return self._password(value)
        if name == "ssl":
            return self._tls(value)
        if name == "timeout":
            return {"connect_timeout": math.ceil(value)}
        if name == "server_settings":
            return {"options": " ".join(_option(setting, str(text)) for setting, text in value.items())}
        if name in ("host", "port"):
            several = value if isinstance(value, (list, tuple)) else (value,)
            return {name: ",".join(map(str, several))}
        return {"dbname": value} if name == "database" else None

    def _password(self, value: Any) -> Mapping[str, Any]:
        if callable(value):
            value = value()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise _untranslatable("with a password that is awaited")
        return {"password": value}

    def _tls(self, value: Any) -> Mapping[str, Any]:
        if isinstance(value, str):
            return {"sslmode": value}
        if value is True:  # the machine's own authorities, and the host's name
            return {"sslmode": "verify-full", "sslrootcert": "system"}
        if value is False:
            return {"sslmode": "disable"}
        if not isinstance(value, ssl.SSLContext):
            raise _untranslatable(f"with ssl={type(value).__name__}(...)")
        if value.verify_mode is ssl.CERT_NONE:
            return {"sslmode": "require"}
        authorities = value.get_ca_certs(binary_form=True)
        if not authorities:  # of a folder, which are read when they are needed
            return {"sslmode": "verify-full", "sslrootcert": "system"}
        if self._authorities is None:
            self._authorities = tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii")  # noqa: SIM115
            self._authorities.writelines(map(ssl.DER_cert_to_PEM_cert, authorities))
            self._authorities.flush()
        # A certificate of the client's own cannot be read from it: a server that asks for one says so (CF201), and
        # libpq takes it from PGSSLCERT and PGSSLKEY.
        mode = "verify-full" if value.check_hostname else "verify-ca"
        return {"sslmode": mode, "sslrootcert": self._authorities.name}


def _option(name: str, value: str) -> str:
    # libpq splits options at spaces; a backslash takes the next character as it is (manual, PGOPTIONS).
    return f"-c {name}=" + value.replace("\\", "\\\\").replace(" ", "\\ ")


def _untranslatable(how: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF301",
            what=f"the asynchronous engine connects {how}.",
            why="Contraflow works on synchronous connections of its own, as safe as these and to the same tables.",
            instead="say it by the URL, or by connect_args that both drivers know (ssl by one of sslmode's words),"
            "\nor give env.py an engine of a synchronous driver (postgresql+psycopg://, mysql+pymysql:// ...).",
        )
    )
