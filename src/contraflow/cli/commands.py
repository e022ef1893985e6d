"""The commands. Each asks a :class:`~contraflow.cli.session.Session` what to work on, and tells an Output what came
of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from contraflow.alembic import record
from contraflow.cli import show
from contraflow.cli.output import Output
from contraflow.cli.session import Common, Session, ended_by_sigterm, without_reflection_warnings
from contraflow.engine.report import Status
from contraflow.lens import Side
from contraflow.problems import Interrupted, ProblemError

__all__ = ["cli", "main"]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell has it: 128 + SIGINT."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


# -- options that every command takes -----------------------------------------------------------------------


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Remember a common option. Given after the command's name, it counts for more than before it."""
    common = context.ensure_object(Common)
    if value not in (None, (), False):
        setattr(common, str(parameter.name), value)


def _common(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    return click.option(*names, callback=_keep, expose_value=False, **settings)


_COMMON = (
    _common("-c", "--config", metavar="FILE", help="alembic.ini or pyproject.toml.  [default: as Alembic]"),
    _common("-n", "--name", metavar="SECTION", help="Alembic's section of alembic.ini.  [default: alembic]"),
    _common("--url", metavar="URL", help="The database, instead of sqlalchemy.url.  [env: CONTRAFLOW_URL]"),
    _common("-x", "arguments", multiple=True, metavar="KEY=VALUE", help="Passed on to env.py; repeatable."),
    _common("--revision", metavar="OLD:NEW", help="The upgrade.  [default: the open one, or what waits]"),
    _common("--json", "as_json", is_flag=True, help="One JSON document on stdout, all else on stderr."),
)


_Options = Sequence[Callable[[Any], Any]]


def _with(options: _Options) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _InOrder(click.Group):
    """Lists its commands in the order of an upgrade, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """The names of the commands, as they were declared."""
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="contraflow", message="contraflow %(version)s")
@_with(_COMMON)
def cli() -> None:
    """Zero-downtime upgrades: two releases of a service side by side on one live database.

    \b
    The way of an upgrade:
      contraflow check        what would stand in its way
      contraflow upgrade      expand, migrate and verify (as alembic upgrade head does)
      ...                     replace the nodes of the old release, one by one
      contraflow contract     remove the old shape
    Until then contraflow rollback goes back to the schema of before.

    \b
    Examples:
      contraflow -c service/alembic.ini upgrade
      contraflow --url postgresql://app@db.internal/app status
    """


def _command(
    name: str, *options: Callable[[Any], Any], common: _Options = _COMMON
) -> Callable[[Callable[..., None]], click.Command]:
    """A command that takes the common options, and whose function gets a Session as its first argument."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(**arguments: Any) -> None:
            function(_session(), **arguments)

        run.__doc__ = function.__doc__
        return cli.command(name)(_with((*options, *common))(run))

    return decorate


_NOTHING = "no upgrade waits: there is no Change after the database's revision"


# -- before ---------------------------------------------------------------------------------------------------


@_command("check")
def check(session: Session) -> None:
    """Look for everything that would stand in the way of the upgrade. Changes nothing.

    Examines the declarations, the schema, the server's settings and privileges, and evaluates every lens over the
    rows that are there and over values that may come. Exits with 1 if there is a problem. Else it tells what the
    server imposes on statements until contract, and what contract will ask for: notices, which refuse nothing.

    \b
    Examples:
      contraflow check
      contraflow check --revision 09bc:a1f3 --json
    """
    if session.upgrade is None:
        session.output.answer({"ok": True, "upgrade": None, "problems": [], "notices": []}, _NOTHING)
        return
    upgrade = session.need_upgrade()
    with session.runner(upgrade) as runner:
        ProblemError.raise_any(runner.check())
        notices = runner.notices()
    session.output.answer(
        {"ok": True, "upgrade": upgrade.id, "problems": [], "notices": [notice.as_dict() for notice in notices]},
        f"{upgrade.id}: nothing stands in the way",
        *map(str, notices),
    )


@_command(
    "plan",
    click.option("--sql", is_flag=True, help="The statements in full, as SQL text."),
    click.option("--phase", multiple=True, metavar="PHASE", help="Only this phase; repeatable."),
    click.option(
        "--record",
        "recorded",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write the server's profile and tables to FILE, for alembic upgrade --sql.",
    ),
)
def plan(session: Session, sql: bool, phase: tuple[str, ...], recorded: Path | None) -> None:
    """Show every statement of every phase, with the lock it takes.

    As it would be sent to the connected server. Changes nothing.

    \b
    Examples:
      contraflow plan
      contraflow plan --sql --phase contract
      contraflow plan --record production.json
    """
    if session.upgrade is None:
        session.output.answer({"upgrade": None, "phases": {}}, _NOTHING)
        return
    upgrade = session.need_upgrade()
    with session.runner(upgrade) as runner:
        report = runner.plan()
        if recorded is not None:
            try:
                record.record(recorded, session.connectable, upgrade)
            except OSError as error:
                raise click.FileError(str(recorded), error.strerror) from error
    if unknown := set(phase) - set(report.phases):
        raise click.UsageError(f"no such phase: {', '.join(sorted(unknown))} (there are {', '.join(report.phases)})")
    if phase:
        report = show.only(report, phase)
    if sql and not session.output.as_json:
        session.output.raw(show.script(report))
    else:
        session.output.answer(report.as_dict(), *show.plan(report))
    if recorded is not None:
        session.output.note(f"recorded in {recorded}")


# -- the verbs ------------------------------------------------------------------------------------------------


def _status(session: Session) -> Status:
    """Where the upgrade stands, and what comes next by the revisions that are here."""
    with session.runner(session.upgrade if session.has_environment else None) as runner:
        return runner.status()


def _report(session: Session, verb: str, now: Status | None = None) -> None:
    """Tell where a verb has led: by the journal alone, unless it was asked already."""
    if now is None:
        with session.runner() as runner:
            now = runner.status()
    session.output.answer({"ok": True, "verb": verb, "status": now.as_dict()}, *show.status(now))


@_command("expand")
def expand(session: Session) -> None:
    """Add the new shape beside the old one, and the sync between them. The old release is not affected.

    \b
    Examples:
      contraflow expand
      contraflow expand --revision 09bc:a1f3
    """
    session.begins = True
    # Without an upgrade that waits: what was expanded before stays so.
    if session.upgrade is not None or session.past.state is None:
        with session.runner(session.need_upgrade()) as runner:
            runner.expand()
    _report(session, "expand")


_LAG = (
    _common("--replica", "replicas", multiple=True, metavar="URL", help="Watch this replica's lag; repeatable."),
    _common("--max-lag", type=click.FloatRange(min=0, min_open=True), help="Pause while it is more.  [default: 10]"),
)


@_command("migrate", *_LAG)
def migrate(session: Session) -> None:
    """Fill the new shape of the rows that were there before.

    In short transactions. May be stopped at any time and goes on where it stood. When it is done, alembic_version moves
    to the new revision: nodes of the new release may start.

    \b
    Examples:
      contraflow migrate
      contraflow migrate --replica postgresql://app@replica.internal/app --max-lag 5
    """
    with session.migrating() as runner:
        runner.migrate()
    session.stamp()
    _report(session, "migrate")


@_command(
    "verify",
    click.option(
        "--show", "shown", type=click.IntRange(min=0), default=3, help="Rows to show of each kind.  [default: 3]"
    ),
)
def verify(session: Session, shown: int) -> None:
    """Look for rows whose two sides disagree.

    Also for rows that were never filled, and for those that a constraint of the new schema forbids.

    \b
    Examples:
      contraflow verify
      contraflow verify --show 20
    """
    with session.runner() as runner:
        runner.verify(show=shown)
    session.stamp()
    _report(session, "verify")


@_command(
    "repair",
    click.argument("table"),
    click.option("--from", "side", type=click.Choice(["old", "new"]), required=True, help="The side that is right."),
)
def repair(session: Session, table: str, side: Side) -> None:
    """Rewrite one side of TABLE from the other where they disagree.

    Only the rows that verify finds are written.

    \b
    Examples:
      contraflow repair users --from old
      contraflow repair billing.invoices --from new --json
    """
    schema, _, name = table.rpartition(".")
    with session.runner() as runner:
        rows = runner.repair(name, side, schema=schema or None)
    session.output.answer(
        {"ok": True, "verb": "repair", "table": table, "rows": rows},
        f"{table}: {rows:,} rows rewritten from the {side} side",
    )


_force = click.option(
    "--force",
    metavar="REASON",
    help="Do it although nodes of the other release are alive; the journal keeps the reason.",
)


@_command("contract", _force)
def contract(session: Session, force: str | None) -> None:
    """Remove the sync and the old shape, for good.

    Refuses while rows disagree, and while a node of the old release is alive.

    \b
    Examples:
      contraflow contract
      contraflow contract --force "node-7 hangs in shutdown; ticket 4711"
    """
    with session.runner() as runner:
        runner.contract(force=force)
    session.stamp()
    _report(session, "contract")


@_command("rollback", _force)
def rollback(session: Session, force: str | None) -> None:
    """Go back to the schema of before. Nothing that the old side holds is lost. Not possible after contract.

    alembic_version goes back, too: where it has moved already, this is alembic downgrade to the old revision.

    \b
    Examples:
      contraflow rollback
    """
    session.run_rollback(force)
    session.look_again()  # the revisions wait again
    try:
        now = _status(session)
    except ProblemError:
        now = None  # What is wrong with the revisions that wait is for the next command to tell: this one is done.
    _report(session, "rollback", now)


@_command(
    "upgrade",
    click.option(
        "--through",
        type=click.Choice(["verify", "contract"]),
        help="How far to go.  [default: as configured, or verify]",
    ),
    *_LAG,
)
def upgrade(session: Session, through: Any) -> None:
    """Expand, migrate and verify, as alembic upgrade head does.

    With progress, and from wherever the upgrade stands. Plain revisions before and after the Changes run as always.
    Then replace the nodes, then contract.

    \b
    Examples:
      contraflow upgrade
      contraflow upgrade --revision 09bc:a1f3
      contraflow upgrade --through contract        (a fresh database, tests, development)
    """
    session.begins = True
    session.run_upgrade(through)
    _report(session, "upgrade")


# -- beside ---------------------------------------------------------------------------------------------------


@_command("status", click.option("--check", "checked", is_flag=True, help="Tell by the exit code what is due."))
def status(session: Session, checked: bool) -> None:
    """Show where the upgrade stands and what comes next.

    With --check the exit code tells: 0 nothing to do, or nodes to be replaced; 2 expand; 3 migrate or verify; 4
    contract is due and allowed; 1 an error.

    \b
    Examples:
      contraflow status
      contraflow status --check --json
    """
    now = _status(session)
    session.output.answer({"ok": True, **now.as_dict()}, *show.status(now))
    if checked and now.exit_code:
        sys.exit(now.exit_code)


@cli.group("nodes", invoke_without_command=True)
@_with(_COMMON)
@click.pass_context
def nodes(context: click.Context) -> None:
    """List the application's processes, and the release of each.

    Those that have announced themselves, by contraflow.install(engine, release="...").

    \b
    Examples:
      contraflow nodes
      contraflow nodes forget 3f2a9c
    """
    if context.invoked_subcommand is None:
        context.invoke(list_nodes)


@nodes.command("list")
@_with(_COMMON)
def list_nodes() -> None:
    """List them: what contraflow nodes does.

    \b
    Examples:
      contraflow nodes list --json
    """
    session = _session()
    with session.runner() as runner:
        known = runner.nodes()
    session.output.answer(
        {"ok": True, "nodes": [node.as_dict() for node in known]},
        show.nodes(known) if known else "no node announced itself",
    )


@nodes.command("forget")
@click.argument("node")
@_with(_COMMON)
def forget(node: str) -> None:
    """Remove NODE (its id), which is known to be gone but still counts as alive.

    \b
    Examples:
      contraflow nodes forget 3f2a9c
    """
    session = _session()
    with session.runner() as runner:
        runner.forget_node(node)
    session.output.answer({"ok": True, "forgotten": node}, f"{node} is forgotten")


@_command(
    "demo",
    _common("--url", metavar="URL", help="An empty database to use; no server is started."),
    _COMMON[-1],
    click.option(
        "--on",
        type=click.Choice(["sqlite", "postgresql", "postgresql15", "mariadb", "mysql"]),
        default="sqlite",
        show_default=True,
        help="The scratch server to start.",
    ),
    click.option(
        "--users", type=click.IntRange(min=10), default=3000, show_default=True, help="Users before the upgrade."
    ),
    click.option("--duration", type=click.FloatRange(min=1), default=12.0, show_default=True, help="Seconds of load."),
    click.option("--seed", type=int, default=0, show_default=True, help="Makes the clients' choices repeatable."),
    common=(),
)
def demo(session: Session, on: str, users: int, duration: float, seed: int) -> None:
    """Upgrade a small service live, under load, and check every value.

    Starts three nodes of release 1, upgrades the database, replaces the nodes one by one by release 2, contracts,
    and prints the verdict. Exits with 1 if a request failed or a value was lost or differs.

    \b
    Examples:
      contraflow demo
      contraflow demo --on mysql --users 10000
    """
    # Imported here: no other command needs the rehearsal.
    from contraflow.rehearsal import demo as rehearsal

    options = rehearsal.Options(on=on, url=session.common.url, users=users, duration=duration, seed=seed)
    with ended_by_sigterm(), session.output.milestones() as tell:
        verdict = rehearsal.run(options, progress=tell)
    session.output.answer({"ok": verdict.passed, **verdict.as_dict()}, rehearsal.table(verdict))
    if not verdict.passed:
        sys.exit(1)


@_command(
    "rehearse",
    click.argument("revisions", metavar="[OLD:NEW]", default=""),
    click.option(
        "--on",
        multiple=True,
        type=click.Choice(["sqlite", "postgresql", "postgresql15", "mariadb", "mysql", "galera", "cockroachdb"]),
        help="The scratch server to start; repeatable.  [default: sqlite]",
    ),
    click.option(
        "--seconds", type=click.FloatRange(min=0.5), default=20.0, show_default=True, help="How long the load lasts."
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), default=4, show_default=True, help="Connections of each release."
    ),
    click.option(
        "--rows", type=click.IntRange(min=0), default=200, show_default=True, help="Rows a table before the upgrade."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Makes workload and faults repeatable."),
    click.option(
        "--data",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE.sql",
        help="Rows of your own for the old release's schema: INSERT statements.",
    ),
    *(
        option
        for release in ("old", "new")
        for option in (
            click.option(
                f"--{release}-workload",
                metavar="MODULE:FUNCTION",
                help=f"What the {release} release does instead of generated statements: function(engine, random).",
            ),
            click.option(
                f"--{release}-python", metavar="FILE", help=f"The interpreter of the {release} release's environment."
            ),
        )
    ),
    click.option(
        "--sql",
        multiple=True,
        metavar="RELEASE=FILE",
        help="Recorded SQL of the old or new release to replay instead: old=FILE, new=FILE; repeatable, each file is a"
        " session. Statements, or a log of PostgreSQL, MySQL or MariaDB.",
    ),
    click.option(
        "--sql-rate",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="Recorded transactions a second of each session.  [default: as fast as they are answered]",
    ),
    click.option(
        "--faults",
        default="none",
        show_default=True,
        metavar="LIST",
        help="What strikes meanwhile: all, none, or kinds (runner-killed) and exact ones (lock-storm@both:0.4+1.5s),"
        " separated by commas.",
    ),
    click.option(
        "--report",
        "page",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        metavar="FILE.html",
        help="Write a page that shows all of it, for a browser.",
    ),
    click.option(
        "--reproduce",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        metavar="FILE.py",
        help="If it fails, write a script that shows it again: the statements of one row, or a smaller rehearsal (up to"
        " 30 are run) that fails alike.",
    ),
    _common("--url", metavar="URL", help="A running server to use instead, whose account may create databases."),
    *(option for option in (_COMMON[0], _COMMON[1], _COMMON[3], _COMMON[5])),
    common=(),
)
def rehearse(session: Session, revisions: str, on: tuple[str, ...], **options: Any) -> None:
    """Rehearse the upgrade under load on scratch servers.

    Starts a server of each kind with the old release's schema and generated rows. Workers of the old release write
    while the upgrade is expanded, migrated and verified; then those of the new release beside them; then only those
    after contract. What one release has written, the other must read in its own shape, and every value is judged.
    Exits with 1 if a statement failed, a value is lost or differs, or the upgrade was refused. Without OLD:NEW: the
    last Changes up to the head.

    \b
    Examples:
      contraflow rehearse
      contraflow rehearse 09bc:a1f3 --on postgresql --on mysql --seconds 60
    """
    # Imported here: no other command needs it.
    from contraflow.cli.rehearse import Workload, recordings_of, run

    recordings = recordings_of(options.pop("sql"))
    # One mapping for both releases: how each one's transactions are made and carried out.
    workloads = {
        release: Workload(
            call=options.pop(f"{release}_workload"),
            python=options.pop(f"{release}_python"),
            recordings=recordings[release],
        )
        for release in ("old", "new")
    }
    if not run(session, revisions=revisions, on=on, workloads=workloads, **options):
        sys.exit(1)


# -- the way out ----------------------------------------------------------------------------------------------


def _session() -> Session:
    common = click.get_current_context().ensure_object(Common)
    return Session(common=common, output=Output(as_json=common.as_json))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: the console script ``contraflow``. Exits with 0, 1 (an error) or 130 (stopped).

    ``status --check`` has exit codes of its own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    common = Common(as_json="--json" in given)
    output = Output(as_json=common.as_json)
    try:
        with without_reflection_warnings():
            cli.main(given, prog_name="contraflow", standalone_mode=False, obj=common)
    except ProblemError as error:
        output.problems(error.problems)
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt, click.Abort):
        _stopped(output, common, given)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        # 2, click's own code for wrong usage, would mean "expand is due" to a caller of status --check.
        if output.as_json:
            output.answer({"ok": False, "error": error.format_message()})
        else:
            error.show(file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # Of env.py or of a revision, whose author needs the traceback; or ours. A program gets its document.
        if output.as_json:
            output.answer({"ok": False, "error": f"{type(error).__name__}: {error}"})
        raise


def _stopped(output: Output, common: Common, given: Sequence[str]) -> None:
    """Say how to go on. The URL is left out: it may hold a password."""
    verb = next((word for word in given if word in cli.commands), "")
    words = ["contraflow", *(["-c", common.config] if common.config else []), verb]
    resume = " ".join(word for word in words if word)
    if output.as_json:
        output.answer({"ok": False, "interrupted": True, "resume": resume})
    else:
        output.note(f"stopped; nothing is half done. Go on with: {resume}")
