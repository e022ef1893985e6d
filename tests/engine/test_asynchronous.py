"""The engine's own connections beside an asynchronous engine: with all that this one gives to its driver."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from contraflow.engine.asynchronous import Arguments
from contraflow.engine.connect import Database as Own
from contraflow.problems import ProblemError
from tests.servers.shared import Database

# What create_async_engine() is given, a question, and the answer of a connection that was given it, too.
GIVEN: dict[str, tuple[dict[str, Any], str, Any]] = {
    "aiosqlite": ({"timeout": 7}, "PRAGMA busy_timeout", 7000),
    "asyncpg": (
        {"server_settings": {"application_name": r"two words, a \ and 'quotes'", "jit": "off"}, "command_timeout": 5},
        "SELECT current_setting('application_name')",
        r"two words, a \ and 'quotes'",
    ),
    "psycopg_async": ({"application_name": "mine"}, "SELECT current_setting('application_name')", "mine"),
    "aiomysql": ({"init_command": "SET @who = 'me'", "echo": False}, "SELECT @who", "me"),
    "asyncmy": ({"init_command": "SET @who = 'me'", "charset": "utf8mb4"}, "SELECT @who", "me"),
}


SERVERS = {driver: "mysql" if driver in ("aiomysql", "asyncmy") else "postgresql" for driver in GIVEN} | {
    "aiosqlite": "sqlite"
}


def asynchronous(url: sa.URL, driver: str) -> sa.URL:
    """The same database by another driver, without what only the synchronous one knows."""
    return url.set(drivername=f"{SERVERS[driver]}+{driver}").difference_update_query(["ssl_disabled"])


@pytest.mark.only_on("sqlite")
def test_what_an_engine_of_sqlite_was_given_is_given_too(database: Database) -> None:
    gives_what_was_given(database, "aiosqlite")


@pytest.mark.only_on("postgresql", "postgresql15")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async"])
def test_what_an_engine_of_postgresql_was_given_is_given_too(database: Database, driver: str) -> None:
    gives_what_was_given(database, driver)


@pytest.mark.only_on("mariadb", "mysql")
@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
def test_what_an_engine_of_mysql_was_given_is_given_too(database: Database, driver: str) -> None:
    gives_what_was_given(database, driver)


def gives_what_was_given(database: Database, driver: str) -> None:
    """Connect as the engine does; its listeners are asked for each connection."""
    given, question, answer = GIVEN[driver]
    asked: list[int] = []
    engine = create_async_engine(asynchronous(database.url, driver), connect_args=given)

    @sa.event.listens_for(engine.sync_engine, "do_connect")
    def token(_dialect: Any, _record: Any, _positional: Any, named: dict[str, Any]) -> None:
        """As it is done with passwords that change."""
        asked.append(1)
        if database.url.password:
            named["password"] = database.url.password

    if database.url.password:
        engine.sync_engine.url = engine.url.set(password="expired")
    own = Own(engine.sync_engine)
    for _ in range(2):
        before = len(asked)
        with own.connect() as connection:
            assert connection.exec_driver_sql(question).scalar() == answer
        assert len(asked) > before  # for each connection
    own.close()


def words(driver: str, **given: Any) -> dict[str, Any]:
    """The arguments of the synchronous driver for these of the asynchronous one."""
    server = SERVERS[driver]
    engine = create_async_engine(f"{server}+{driver}://me:secret@db.example/app", connect_args=given)
    return Arguments(engine.sync_engine, "psycopg" if server == "postgresql" else "pymysql")()


def test_arguments_of_asyncpg_in_the_words_of_libpq() -> None:
    assert words("asyncpg", user="you", password=lambda: "token", database="other", timeout=2.5) == {
        "user": "you",
        "password": "token",
        "dbname": "other",
        "connect_timeout": 3,
    }
    assert words("asyncpg", host=["a", "b"], port=[1, 2]) == {"host": "a,b", "port": "1,2"}
    assert words("asyncpg", server_settings={"search_path": "a b, c\\d"}) == {
        "options": "-c search_path=a\\ b,\\ c\\\\d"
    }
    assert words("asyncpg", user="me", statement_cache_size=0, ssl=None, server_settings=None, timeout=None) == {}


def test_tls_is_never_less_than_what_was_asked_for() -> None:
    assert words("asyncpg", ssl="verify-ca") == {"sslmode": "verify-ca"}
    assert words("asyncpg", ssl=False) == {"sslmode": "disable"}
    assert words("asyncpg", ssl=True) == {"sslmode": "verify-full", "sslrootcert": "system"}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert words("asyncpg", ssl=context) == {"sslmode": "verify-full", "sslrootcert": "system"}
    assert words("aiomysql", ssl=context) == {"ssl": context}
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert words("asyncpg", ssl=context) == {"sslmode": "require"}


def test_authorities_of_a_context_are_given_as_a_file() -> None:
    authority = b"\x30\x00"

    class Context(ssl.SSLContext):
        def get_ca_certs(self, binary_form: bool = False) -> Any:
            assert binary_form
            return [authority]

    engine = create_async_engine("postgresql+asyncpg://db/app", connect_args={"ssl": Context(ssl.PROTOCOL_TLS_CLIENT)})
    arguments = Arguments(engine.sync_engine, "psycopg")
    given = arguments()
    assert given["sslmode"] == "verify-full"
    path = Path(given["sslrootcert"])
    assert path.read_text(encoding="ascii") == ssl.DER_cert_to_PEM_cert(authority)
    assert arguments()["sslrootcert"] == str(path)
    del arguments
    assert not path.exists()


async def token() -> str:
    """A password that is awaited."""
    return "secret"


@pytest.mark.parametrize(
    ("driver", "given", "told"),
    [
        ("asyncpg", {"dsn": "postgresql://other"}, "the argument dsn=str(...) of asyncpg"),
        ("asyncpg", {"password": token}, "a password that is awaited"),
        ("asyncpg", {"ssl": object()}, "ssl=object(...)"),
        ("aiomysql", {"unheard_of": 1}, "the argument unheard_of=int(...) of aiomysql"),
    ],
)
def test_what_has_no_counterpart_is_refused(driver: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ProblemError) as error:
        words(driver, **given)
    assert [problem.code for problem in error.value.problems] == ["CF301"]
    assert told in str(error.value)


@pytest.mark.only_on("sqlite")
def test_an_engine_that_connects_by_a_function_of_its_own(database: Database) -> None:
    async def creator() -> Any:
        raise AssertionError

    url = asynchronous(database.url, "aiosqlite")
    with (
        pytest.raises(ProblemError, match="async_creator"),
        Own(create_async_engine(url, async_creator=creator).sync_engine).connect(),
    ):
        pass
    engine = create_async_engine(url)
    closed: list[bool] = []

    class Made:
        def close(self) -> None:
            closed.append(True)

    sa.event.listen(engine.sync_engine, "do_connect", lambda *_arguments: Made())
    with pytest.raises(ProblemError, match="makes the connection"), Own(engine.sync_engine).connect():
        pass
    assert closed == [True]
