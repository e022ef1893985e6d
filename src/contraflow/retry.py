"""Transactions that survive conflicts: run again, whole, until they commit.

::

    @contraflow.retry(engine, attempts=5)
    def transfer(tx, source, target, amount): ...

`retry` makes a function of one, `run_transaction` runs one now. Both own the transaction from BEGIN to
COMMIT, because a conflict may show only at COMMIT (Galera, CockroachDB, PostgreSQL's SERIALIZABLE), and
because a part of a transaction cannot be run again: a deadlock on MySQL takes the earlier statements with it.

What runs inside may run several times, so it must have no effect but on its transaction, and it must not end
the transaction itself. Works alone; `contraflow.faults.install` is not needed for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import random
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypedDict, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.result import FilterResult, Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Query, Session, sessionmaker
from sqlalchemy.util import await_only, greenlet_spawn

from contraflow.faults import Diagnosis, Fault, diagnose, typed
from contraflow.problems import ContraflowError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect, ExceptionContext
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncMappingResult,
        AsyncResult,
        AsyncScalarResult,
        AsyncSession,
        async_sessionmaker,
    )
    from typing_extensions import Unpack
else:
    try:
        from sqlalchemy.ext.asyncio import (
            AsyncConnection,
            AsyncEngine,
            AsyncMappingResult,
            AsyncResult,
            AsyncScalarResult,
            AsyncSession,
            async_sessionmaker,
        )
    except ImportError:  # SQLAlchemy 2.1 without greenlet has no asyncio: nobody can pass one of these

        class _Absent:
            """Stands for a class that cannot exist here."""

        AsyncConnection = AsyncEngine = AsyncMappingResult = AsyncResult = AsyncScalarResult = _Absent
        AsyncSession = async_sessionmaker = _Absent

__all__ = ["Attempt", "Backoff", "RetryOptions", "TransactionMisused", "exponential", "retry", "run_transaction"]

T = TypeVar("T")
P = ParamSpec("P")
SessionT = TypeVar("SessionT", bound=Session)
AsyncSessionT = TypeVar("AsyncSessionT", bound=AsyncSession)

Backoff = Callable[[int, Fault], float]
"""Longest delay, in seconds, before the attempt that follows attempt number ``n`` (from 1), which ended with
the given fault. The delay itself is drawn uniformly between 0 and that ("full jitter")."""


class TransactionMisused(ContraflowError, RuntimeError):
    """What ran inside did something that cannot be part of a transaction that is run again.

    It returned something that lives only inside, ended the transaction itself, went on after an error that
    had lost the transaction, or the engine is in autocommit mode. The transaction is rolled back, unless the
    message says otherwise.
    """


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A failed attempt, as ``on_retry`` sees it.

    :ivar number: from 1.
    :ivar fault: why it failed.
    :ivar error: the exception.
    :ivar elapsed: seconds since the first attempt began.
    :ivar delay: seconds until the next attempt; None if there will be none.
    """

    number: int
    fault: Fault
    error: Exception
    elapsed: float
    delay: float | None


def exponential(number: int, fault: Fault) -> float:
    """The default `Backoff`: 4 ms tripling up to 1 s for conflicts, 0.1 s doubling up to 2 s while no server is there.

    A conflict ends with the other transaction, an outage with a failover: about 2 s on a Galera cluster. Tripling gave
    more commits a second than doubling or quadrupling from 4 to 64 workers on one row (bench/RESULTS.md).
    """
    first, factor, longest = (0.1, 2.0, 2.0) if fault in _OUTAGES else (0.004, 3.0, 1.0)
    return min(longest, first * factor ** min(number - 1, 16))


_OUTAGES = frozenset({Fault.DISCONNECT, Fault.UNAVAILABLE, Fault.COMMIT_UNKNOWN})


class RetryOptions(TypedDict, total=False):
    """The options of `retry` and `run_transaction`.

    ``attempts``: how often the transaction is run at most; None for no limit. Default 10.
    ``deadline``: seconds after which no further attempt begins; default None. A running one is not
    interrupted. ``idempotent``: running the transaction again although it may be committed already does no
    harm; then a lost answer to COMMIT is run again, too, instead of raising `CommitUnknown`. Default False.
    ``backoff``: see `Backoff`; default `exponential`.
    ``on_retry``: called with an `Attempt` after each one that failed in a way that may pass, for metrics and
    logs. ``clock``, ``sleep``, ``jitter``: where time and chance come from; ``sleep`` takes seconds and, for
    an async bind, returns an awaitable; ``jitter`` returns a number from 0 to 1.
    """

    attempts: int | None
    deadline: float | None
    idempotent: bool
    backoff: Backoff
    on_retry: Callable[[Attempt], None] | None
    clock: Callable[[], float]
    sleep: Callable[[float], Any]
    jitter: Callable[[], float]


class _Frame:
    """One transaction in progress: who runs it on what, and what has gone wrong in it so far."""

    def __init__(self, bind: object) -> None:
        self.bind = bind
        self.owner = _owner()
        self.handle: Any = None
        self.connected = False
        self.committing = False
        self.cockroachdb = False
        self._seen: list[BaseException] = []
        self._lost: list[tuple[Exception, Fault, sa.NestedTransaction | None]] = []

    def note(self, error: Exception, raised: Exception, savepoint: sa.NestedTransaction | None, dialect: str) -> None:
        """Remember ``error``, for which ``raised`` is raised, if it has lost the transaction, or a savepoint."""
        diagnosis = diagnose(error)
        fault = diagnosis.fault
        if dialect in ("postgresql", "cockroachdb"):
            # What the driver refused by itself has not reached the server and changes nothing there.
            lost = diagnosis.sqlstate is not None or fault in _OUTAGES
            if fault in _OUTAGES or (self.cockroachdb and fault.transient):
                savepoint = None
        else:
            lost, savepoint = dialect in _KNOWN and fault.loses_transaction(dialect), None
        if lost and fault is not Fault.TRANSACTION_ABORTED:
            self._lost.append((raised, fault, savepoint))
        self._seen += (error, raised)

    def lost_to(self) -> tuple[Exception, Fault] | None:
        """The error that has lost the transaction, unless a savepoint before it was returned to."""
        for error, fault, savepoint in self._lost:
            if savepoint is None or savepoint.is_active:
                return error, fault
        return None

    def diagnosis(self, error: BaseException) -> Diagnosis:
        """Why the attempt ended with ``error``, which may be an application's own, raised from the
        database's.

        What the operating system says counts only if the database connection said it: a refused connection to
        another service is none of ours.
        """
        reason: BaseException | None = error
        while reason is not None:
            ours = isinstance(reason, DBAPIError) or reason in self._seen or not self.connected or self.committing
            if ours or not isinstance(reason, (OSError, asyncio.TimeoutError)):
                found = diagnose(reason)
                if found.fault is not Fault.OTHER:
                    return found
            reason = reason.__cause__
        return Diagnosis(fault=Fault.OTHER)

    def restarted(self) -> None:
        """The transaction begins anew on the same connection."""
        self._lost.clear()
        self._seen.clear()
        self.committing = False


_KNOWN = frozenset({"mysql", "mariadb", "sqlite"})
_frames: weakref.WeakKeyDictionary[sa.Connection, _Frame] = weakref.WeakKeyDictionary()
_watched: weakref.WeakSet[Dialect] = weakref.WeakSet()
_running: contextvars.ContextVar[tuple[_Frame, ...]] = contextvars.ContextVar("contraflow_retry", default=())


def _watch(connection: sa.Connection, frame: _Frame) -> None:
    """Let ``frame`` learn of the errors on ``connection``, also of those that are swallowed."""
    _frames[connection] = frame
    if connection.dialect not in _watched:  # an engine and its execution_options() copies share one
        _watched.add(connection.dialect)
        event.listen(connection.engine, "handle_error", _note_error)


def _note_error(context: ExceptionContext) -> None:
    connection = context.connection
    frame = _frames.get(connection) if connection is not None else None
    error = context.sqlalchemy_exception or context.original_exception
    if frame is not None and connection is not None and isinstance(error, Exception):
        raised = getattr(context, "chained_exception", None)  # `faults.install`, oslo.db or the application
        raised = raised if isinstance(raised, Exception) else error
        frame.note(error, raised, connection.get_nested_transaction(), context.dialect.name)


def _owner() -> object:
    """The task or thread that runs now: a transaction is joined by its own only."""
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:  # no event loop here
        return threading.get_ident()


class _Scope:
    """A connection or session taken from a bind, and the transaction on it."""

    def __init__(self, bind: object) -> None:
        self.handle: Any
        self._target: sa.Connection | Session
        self._owned = not isinstance(bind, (Session, AsyncSession))
        if isinstance(bind, sa.Engine):
            self.handle = self._target = bind.connect()
        elif isinstance(bind, AsyncEngine):
            self.handle = await_only(bind.connect().start())
            self._target = self.handle.sync_connection
        else:
            self.handle = bind() if isinstance(bind, (sessionmaker, async_sessionmaker)) else bind
            self._target = self.handle if isinstance(self.handle, Session) else self.handle.sync_session
        self._savepoint = False
        if self._target.in_transaction():
            raise TransactionMisused(
                "the session is in a transaction already, which cannot be run again from its beginning; commit "
                "or roll back before, or pass the sessionmaker"
            )
        try:
            self._transaction = self._target.begin()
            self.connection = self._target if isinstance(self._target, sa.Connection) else self._target.connection()
        except BaseException:
            self.close(discard=False)
            raise
        self.cockroachdb = _is_cockroachdb(self.connection)

    def begin(self) -> None:
        """Begin on the server, where SQLAlchemy and the driver leave that to the first statement.

        Python's `sqlite3` begins before the first write only, so that what was read before it is not part of
        the transaction; and a transaction that reads first and writes later cannot wait for a lock on SQLite,
        it fails at once: so the lock is taken at the beginning. CockroachDB keeps its place in the queue when
        a transaction is restarted by its savepoint ``cockroach_restart``.
        """
        if _in_autocommit(self.connection):
            raise TransactionMisused("the engine is in autocommit mode: nothing could be rolled back and run again")
        if self.connection.dialect.name == "sqlite":
            driver: Any = self.connection.connection.driver_connection
            if not driver.in_transaction:
                self.connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif self.cockroachdb and self._target is self.connection:
            self.connection.exec_driver_sql("SAVEPOINT cockroach_restart")
            self._savepoint = True

    def flush(self) -> None:
        """Send what a session holds back, so that COMMIT is all that is left."""
        if self._transaction is not self._target.get_transaction() or not self._transaction.is_active:
            raise TransactionMisused("the transaction was ended inside; what was committed there stays committed")
        if isinstance(self._target, Session):
            self._target.flush()

    def commit(self) -> None:
        """Commit; with the savepoint, its release is the commit, and COMMIT only says goodbye."""
        if self._savepoint:
            self.connection.exec_driver_sql("RELEASE SAVEPOINT cockroach_restart")
            try:
                self._transaction.commit()
            except DBAPIError as error:
                if diagnose(error).fault not in _OUTAGES:
                    raise
        else:
            self._transaction.commit()

    def restart(self) -> bool:
        """Go back to the beginning on the same connection; False if that cannot be done."""
        if not self._savepoint or self.connection.invalidated:
            return False
        try:
            self.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT cockroach_restart")
        except DBAPIError:
            return False
        return True

    def close(self, *, discard: bool) -> None:
        """Roll back what is not committed and give the connection back, or with ``discard`` throw it away."""
        try:
            if discard:
                self.connection.invalidate()
            self._target.rollback()
        except DBAPIError:
            # The connection does not even roll back. SQLAlchemy has thrown it away, and the server, which
            # sees it close, rolls back by itself; the error that led here is the one to report.
            if isinstance(self._target, sa.Connection):
                self._target.invalidate()
        finally:
            if self._owned:
                self._target.close()


def _is_cockroachdb(connection: sa.Connection) -> bool:
    """Asked of the server's greeting, once a physical connection: the URL may say postgresql."""
    name = connection.dialect.name
    if name != "postgresql":
        return name == "cockroachdb"
    known = connection.info.get("contraflow.cockroachdb")
    if known is None:
        driver: Any = connection.connection.driver_connection
        if hasattr(driver, "get_settings"):  # asyncpg
            version = getattr(driver.get_settings(), "crdb_version", None)
        elif hasattr(driver, "get_parameter_status"):  # psycopg2
            version = driver.get_parameter_status("crdb_version")
        else:
            parameter_status = getattr(getattr(driver, "info", None), "parameter_status", None)
            version = parameter_status("crdb_version") if parameter_status is not None else None
        known = connection.info["contraflow.cockroachdb"] = version is not None
    return bool(known)


def _in_autocommit(connection: sa.Connection) -> bool:
    if connection.dialect.name == "sqlite":
        return False  # there `begin` sends BEGIN itself
    level = connection.get_execution_options().get("isolation_level")
    if level is not None:
        return str(level).upper() == "AUTOCOMMIT"
    autocommit = getattr(connection.connection.dbapi_connection, "autocommit", None)
    return autocommit is True


_ESCAPING = (
    Generator,
    AsyncGenerator,
    Coroutine,
    Result,
    FilterResult,
    Query,
    AsyncResult,
    AsyncScalarResult,
    AsyncMappingResult,
)


def _refuse_escape(value: object) -> None:
    """Refuse what would still talk to the transaction after it has ended."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for item in (value, *(() if isinstance(value, sa.Row) else inside)):
        if isinstance(item, _ESCAPING):
            if isinstance(item, Coroutine):
                item.close()
            raise TransactionMisused(
                f"a {type(item).__name__} was returned from inside, but lives only as long as the transaction; "
                "return its rows, for example .all() or .scalar()"
            )


@dataclass(frozen=True, kw_only=True)
class _Runner:
    """`run_transaction`, its arguments gathered; `RetryOptions` describes them."""

    bind: Any
    work: Callable[[Any], Any]
    attempts: int | None = 10
    deadline: float | None = None
    idempotent: bool = False
    backoff: Backoff = exponential
    on_retry: Callable[[Attempt], None] | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Any] = time.sleep
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, or None for no limit, not {self.attempts!r}")
        if self.deadline is not None and self.deadline < 0:
            raise ValueError(f"deadline must be a number of seconds, not {self.deadline!r}")

    def run(self) -> Any:
        """Until it is committed or given up."""
        owner = _owner()
        for frame in reversed(_running.get()):
            if frame.bind is self.bind and frame.owner == owner:
                return self.work(frame.handle)
        started = self.clock()
        failures = 0
        while True:
            frame = _Frame(self.bind)
            token = _running.set((*_running.get(), frame))
            scope: _Scope | None = None
            bad = False
            try:
                scope = _Scope(self.bind)
                while True:
                    try:
                        return self._attempt(frame, scope)
                    except Exception as error:  # noqa: BLE001 - `_judge` raises what is not to be retried
                        failures += 1
                        failed = self._judge(error, frame, failures, started)
                        bad = failed.fault in _BAD_CONNECTION
                        if failed.fault is not Fault.SERIALIZATION or not scope.restart():
                            break
                    frame.restarted()
                    self.sleep(failed.delay or 0.0)
            except Exception as error:  # SQLAlchemy 2.0 does not wrap what asyncpg says while connecting
                if scope is not None:  # judged already: this is the end
                    raise
                failures += 1
                failed = self._judge(error, frame, failures, started)
            finally:
                _running.reset(token)
                if scope is not None:
                    scope.close(discard=bad)
            self.sleep(failed.delay or 0.0)

    def _attempt(self, frame: _Frame, scope: _Scope) -> Any:
        if not frame.connected:
            scope.begin()
            frame.handle, frame.cockroachdb, frame.connected = scope.handle, scope.cockroachdb, True
            _watch(scope.connection, frame)
        result = self.work(frame.handle)
        lost = frame.lost_to()
        if lost is not None:
            error, fault = lost
            if fault.transient:
                raise error
            raise TransactionMisused(
                f"an error ({fault.meaning.rstrip('.')}) was caught inside although it had lost the transaction; "
                "nothing could be committed. Where an error is expected, put the statement into begin_nested()"
            ) from error
        _refuse_escape(result)
        scope.flush()
        frame.committing = True
        scope.commit()
        return result

    def _judge(self, error: Exception, frame: _Frame, number: int, started: float) -> Attempt:
        """What follows from ``error``: the attempt with its delay, or the exception that ends it all."""
        diagnosis = frame.diagnosis(error)
        fault = diagnosis.fault
        lost = frame.lost_to()
        if lost is not None and lost[1].transient and not frame.committing:
            fault = lost[1]  # whatever it was made into inside: the transaction is gone, and may well succeed
        if fault is Fault.COMMIT_UNKNOWN or (frame.committing and _is_unknown(diagnosis)):
            fault = Fault.COMMIT_UNKNOWN
            if not self.idempotent:
                raise typed(error, replace(diagnosis, fault=fault)) from (error.__cause__ or error)
        elif not fault.transient:
            raise error
        elapsed = self.clock() - started
        delay: float | None = self.backoff(number, fault) * self.jitter()
        if (self.attempts is not None and number >= self.attempts) or (
            self.deadline is not None and elapsed + (delay or 0.0) > self.deadline
        ):
            delay = None
        failed = Attempt(number=number, fault=fault, error=error, elapsed=elapsed, delay=delay)
        if self.on_retry is not None:
            self.on_retry(failed)
        if delay is None:
            raise error
        return failed


_BAD_CONNECTION = frozenset({Fault.SCHEMA_CHANGED, Fault.UNAVAILABLE, Fault.DISCONNECT, Fault.COMMIT_UNKNOWN})
"""After these another connection is needed: psycopg keeps a plan that the server refuses, a Galera node that
is not primary still answers."""


def _is_unknown(diagnosis: Diagnosis) -> bool:
    """Whether this answer to COMMIT leaves open what became of it.

    An error of the server's means that it did not commit, except where it went away or left its cluster while
    it did, or where a time limit ended the waiting and not the commit (MySQL, MariaDB, and limits of the
    driver).
    """
    if diagnosis.fault in (Fault.DISCONNECT, Fault.UNAVAILABLE):
        return True
    if diagnosis.fault in (Fault.CANCELLED, Fault.STATEMENT_TIMEOUT, Fault.OTHER):
        server_said_no = diagnosis.sqlstate is not None and diagnosis.errno is None
        if diagnosis.fault is Fault.OTHER:
            server_said_no = server_said_no or diagnosis.errno is not None
        return not server_said_no
    return False


@overload
def run_transaction(bind: sa.Engine, work: Callable[[sa.Connection], T], **options: Unpack[RetryOptions]) -> T: ...
@overload
def run_transaction(
    bind: sessionmaker[SessionT], work: Callable[[SessionT], T], **options: Unpack[RetryOptions]
) -> T: ...
@overload
def run_transaction(bind: SessionT, work: Callable[[SessionT], T], **options: Unpack[RetryOptions]) -> T: ...
@overload
def run_transaction(
    bind: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]], **options: Unpack[RetryOptions]
) -> Awaitable[T]: ...
@overload
def run_transaction(
    bind: async_sessionmaker[AsyncSessionT],
    work: Callable[[AsyncSessionT], Awaitable[T]],
    **options: Unpack[RetryOptions],
) -> Awaitable[T]: ...
@overload
def run_transaction(
    bind: AsyncSessionT, work: Callable[[AsyncSessionT], Awaitable[T]], **options: Unpack[RetryOptions]
) -> Awaitable[T]: ...
def run_transaction(bind: Any, work: Callable[[Any], Any], **options: Unpack[RetryOptions]) -> Any:
    """Run ``work`` in a transaction on ``bind`` and commit it, as often as conflicts demand.

    ``work`` gets a connection (engine) or a session (sessionmaker, session), to use and not to commit, and
    what it
    returns is returned. An async bind takes an async ``work`` and gives an awaitable. Between attempts
    nothing is held: the connection is back in its pool. A call inside ``work`` on the same bind, in the same
    thread or task, joins the transaction that runs: its errors go to the outer one, its options do not count.

    Retried are transient faults, wherever in the transaction they come up, also if ``work`` has caught them
    or made other exceptions of them with ``raise ... from``. A session is rolled back before each further
    attempt, which discards everything in it that was not committed: what ``work`` needs it must read or make
    inside.

    :param options: see `RetryOptions`.
    :raises sqlalchemy.exc.DBAPIError: the last error, unchanged, if it is not transient, or attempts or
    deadline are
        used up; likewise any other exception of ``work``.
    :raises CommitUnknown: if the answer to COMMIT is lost and ``idempotent`` is not set.
    :raises TransactionMisused: see there.
    :raises TypeError: if ``bind`` cannot run transactions.
    """
    if isinstance(bind, (sa.Engine, sessionmaker, Session)):
        return _Runner(bind=bind, work=work, **options).run()
    if not isinstance(bind, (AsyncEngine, async_sessionmaker, AsyncSession)):
        raise TypeError(
            f"{bind!r} cannot run transactions; pass an Engine, sessionmaker or Session, or one of their async twins"
        )
    sleep = options.get("sleep", asyncio.sleep)
    adapted: RetryOptions = {**options, "sleep": lambda seconds: _awaited(sleep(seconds))}
    runner = _Runner(bind=bind, work=lambda handle: _awaited(work(handle)), **adapted)
    return greenlet_spawn(runner.run)


def _awaited(value: Any) -> Any:
    return await_only(value) if inspect.isawaitable(value) else value


@overload
def retry(
    bind: sa.Engine, **options: Unpack[RetryOptions]
) -> Callable[[Callable[Concatenate[sa.Connection, P], T]], Callable[P, T]]: ...
@overload
def retry(
    bind: sessionmaker[SessionT] | SessionT, **options: Unpack[RetryOptions]
) -> Callable[[Callable[Concatenate[SessionT, P], T]], Callable[P, T]]: ...
@overload
def retry(
    bind: AsyncEngine, **options: Unpack[RetryOptions]
) -> Callable[
    [Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]
]: ...
@overload
def retry(
    bind: async_sessionmaker[AsyncSessionT] | AsyncSessionT, **options: Unpack[RetryOptions]
) -> Callable[
    [Callable[Concatenate[AsyncSessionT, P], Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]
]: ...
def retry(bind: Any, **options: Unpack[RetryOptions]) -> Any:
    """Make a function run in a transaction on ``bind`` whenever it is called; `run_transaction` says how.

    The function's first argument is the connection or session, and is left out by the caller.

    :raises TypeError: if the function is a generator, or async on a bind that is not, or the other way round.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator: it would go on after its transaction has ended")
        asynchronous = isinstance(bind, (AsyncEngine, async_sessionmaker, AsyncSession))
        if asynchronous != inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} and {bind!r} must both be async, or neither")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return run_transaction(bind, lambda handle: function(handle, *args, **kwargs), **options)

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

        return call_async if asynchronous else call

    return decorate
