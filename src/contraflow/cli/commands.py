"""The commands on a live database. Each asks a :class:`~contraflow.cli.session.Session` what to work on, and tells an
Output what came of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from contraflow.alembic import record
from contraflow.cli import show
from contraflow.cli.group import COMMON, cli, command, common_option, this_session, with_options
from contraflow.cli.session import Session
from contraflow.engine.report import Status
from contraflow.lens import Side
from contraflow.problems import ProblemError

__all__: list[str] = []

_NOTHING = "no upgrade waits: there is no Change after the database's revision"


# -- before ---------------------------------------------------------------------------------------------------


@command("check")
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


@command(
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


@command("expand")
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
    common_option("--replica", "replicas", multiple=True, metavar="URL", help="Watch this replica's lag; repeatable."),
    common_option(
        "--max-lag", type=click.FloatRange(min=0, min_open=True), help="Pause while it is more.  [default: 10]"
    ),
)


@command("migrate", *_LAG)
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


@command(
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


@command(
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


@command("contract", _force)
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


@command("rollback", _force)
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


@command(
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


@command("status", click.option("--check", "checked", is_flag=True, help="Tell by the exit code what is due."))
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
@with_options(COMMON)
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
@with_options(COMMON)
def list_nodes() -> None:
    """List them: what contraflow nodes does.

    \b
    Examples:
      contraflow nodes list --json
    """
    session = this_session()
    with session.runner() as runner:
        known = runner.nodes()
    session.output.answer(
        {"ok": True, "nodes": [node.as_dict() for node in known]},
        show.nodes(known) if known else "no node announced itself",
    )


@nodes.command("forget")
@click.argument("node")
@with_options(COMMON)
def forget(node: str) -> None:
    """Remove NODE (its id), which is known to be gone but still counts as alive.

    \b
    Examples:
      contraflow nodes forget 3f2a9c
    """
    session = this_session()
    with session.runner() as runner:
        runner.forget_node(node)
    session.output.answer({"ok": True, "forgotten": node}, f"{node} is forgotten")
