"""The commands on scratch servers: the demo, and the rehearsal of an upgrade."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from contraflow.cli.group import COMMON, command, common_option
from contraflow.cli.session import Session, ended_by_sigterm

__all__: list[str] = []


@command(
    "demo",
    common_option("--url", metavar="URL", help="An empty database to use; no server is started."),
    COMMON[-1],
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


@command(
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
    common_option("--url", metavar="URL", help="A running server to use instead, whose account may create databases."),
    *(option for option in (COMMON[0], COMMON[1], COMMON[3], COMMON[5])),
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
