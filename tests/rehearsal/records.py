"""Records of rehearsals that never were, for tests of how they are stored and shown."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random

from contraflow.rehearsal.record import (
    Backfilled,
    Bucket,
    Event,
    FaultRecord,
    Finding,
    Lock,
    Phase,
    Record,
    Release,
    Stall,
    Try,
)

PHASES = (
    Phase(name="old release alone", began=0.0, ended=8.0),
    Phase(name="expand", began=8.0, ended=9.4, detail="3 statements in one hold"),
    Phase(name="migrate", began=9.4, ended=31.2, detail="204 113 rows"),
    Phase(name="verify", began=31.2, ended=33.0),
    Phase(name="both releases", began=33.0, ended=46.8),
    Phase(name="checking every row before contract", began=46.8, ended=48.0),
    Phase(name="contract", began=48.0, ended=49.1),
    Phase(name="new release alone", began=49.1, ended=60.0),
)


def serves(release: Release, second: int) -> bool:
    return second < 48 if release == "old" else second >= 33


def buckets(seed: int) -> tuple[Bucket, ...]:
    rng = random.Random(seed)
    made = []
    for second in range(60):
        releases: list[Release] = [release for release in ("old", "new") if serves(release, second)]
        for release in releases:
            requests = round(rng.gauss(880, 40) / len(releases))
            slow = 6.0 if 9 <= second < 31 else 2.4
            p99 = abs(rng.gauss(slow, slow / 6))
            worst = 214.0 if second == 8 else 161.0 if second == 48 else p99 * rng.uniform(1.4, 5)
            killed = release == "old" and second == 20
            made.append(
                Bucket(
                    at=second,
                    release=release,
                    requests=requests // 3 if killed else requests,
                    p50_ms=round(p99 / 3, 2),
                    p99_ms=round(p99, 2),
                    worst_ms=round(worst, 2),
                )
            )
    return tuple(made)


def progress() -> tuple[Backfilled, ...]:
    users = tuple(
        Backfilled(at=9.6 + n * 0.6, table="users", done=min(n * 8_000, 180_000), total=180_000) for n in range(24)
    )
    projects = tuple(Backfilled(at=24 + n * 0.6, table="projects", done=min(n * 2_500, 24_113)) for n in range(12))
    return users + projects


def passed(seed: int = 7) -> Record:
    """A rehearsal with everything a report can show, and nothing wrong."""
    return Record(
        started=dt.datetime(2026, 11, 22, 6, 30, 12, tzinfo=dt.timezone.utc),
        seconds=60.0,
        seed=seed,
        command=f"contraflow rehearse a1f3:c77e --on postgresql --seconds 60 --faults all --seed {seed}",
        server="postgresql",
        server_version="18.6",
        versions={
            "contraflow": "0.1.0",
            "SQLAlchemy": "2.1.9",
            "Alembic": "1.20.1",
            "psycopg": "3.3.9",
            "Python": "3.11.2",
        },
        old="a1f3",
        new="c77e",
        options={"workers": 8, "seconds": 60, "faults": "all", "keys": 204_113},
        phases=PHASES,
        buckets=buckets(seed),
        stalls=(
            Stall(release="old", at=8.2, ms=214.0, phase="expand", what="update users"),
            Stall(release="new", at=48.3, ms=161.0, phase="contract", what="insert into users"),
            Stall(release="old", at=20.1, ms=148.5, phase="migrate", what="update projects"),
        ),
        faults=(
            FaultRecord(kind="long-reader", title="a long reader", at=8.0, until=11.0, detail="SELECT over users, 3 s"),
            FaultRecord(
                kind="runner-killed", title="the runner is killed", at=14.2, detail="SIGKILL inside statement 7"
            ),
            FaultRecord(kind="server-restarted", title="the server is restarted", at=20.0, until=21.4),
            FaultRecord(kind="worker-cut", title="a connection is cut", at=40.5, detail="old-2"),
        ),
        progress=progress(),
        locks=(
            Lock(
                at=8.1,
                statement="ALTER TABLE users ADD COLUMN first_name VARCHAR(80), ADD COLUMN last_name VARCHAR(80)",
                ms=250.0,
                granted=False,
            ),
            Lock(
                at=8.6,
                statement="ALTER TABLE users ADD COLUMN first_name VARCHAR(80), ADD COLUMN last_name VARCHAR(80)",
                ms=38.0,
            ),
            Lock(at=48.1, statement="DROP TRIGGER contraflow_users ON users", ms=112.0),
        ),
        tries=(
            Try(verb="expand", at=8.0, seconds=1.4, outcome="done"),
            Try(verb="migrate", at=9.4, seconds=4.8, outcome="killed inside statement 7"),
            Try(verb="migrate", at=14.5, seconds=16.7, outcome="done"),
            Try(verb="verify", at=31.2, seconds=1.8, outcome="done"),
            Try(verb="contract", at=48.0, seconds=1.1, outcome="done"),
        ),
        counts={
            "acknowledged writes": 31_204,
            "reads": 20_991,
            "values checked": 812_442,
            "retried": 18,
            "in flight at a kill": 5,
            "unknown commits": 2,
        },
        verdict="passed",
        reason="52 195 requests, none failed; no acknowledged write lost; the longest wait was 214 ms",
    )


def failed(seed: int = 8) -> Record:
    """A rehearsal in which a trigger was missing: two findings, one with a history that must not break the page."""
    base = passed(seed)
    history = (
        Event(at=30.2, release="old", worker="old-1", action="insert", values={"id": 17, "full_name": "Ada Lovelace"}),
        Event(
            at=34.9,
            release="new",
            worker="new-0",
            action="read",
            values={"id": 17, "first_name": "Ada", "last_name": "Lovelace"},
        ),
        Event(at=36.1, release=None, action="the sync trigger of users is dropped"),
        Event(
            at=41.7,
            release="old",
            worker="old-1",
            action="update",
            values={"id": 17, "full_name": "Augusta Ada King <&> " + "x" * 90},
            outcome="unknown",
        ),
        Event(
            at=44.0,
            release="new",
            worker="new-0",
            action="read",
            values={"id": 17, "first_name": "Ada", "last_name": None},
            outcome="<wrong>",
        ),
    )
    return dataclasses.replace(
        base,
        findings=(
            Finding(
                kind="lost",
                table="users",
                key="id=17",
                what="the new release reads first_name = 'Ada'; the last acknowledged write says 'Augusta'",
                history=history,
                reproduce=(
                    "import sqlalchemy as sa\n\n"
                    "engine = sa.create_engine('sqlite://')\n"
                    "assert 1 < 2 & 3, '<script>alert(1)</script>'\n"
                ),
            ),
            Finding(kind="structure", table="users", what="after contract the index ix_users_full_name is still there"),
            Finding(
                kind="failed",
                table="projects",
                key="id=3",
                what=(
                    "insert into projects failed: (psycopg.errors.NotNullViolation) null value in column"
                    ' "handle" violates not-null constraint'
                ),
            ),
        ),
        verdict="failed",
        reason="1 acknowledged write lost, 1 statement failed, 1 thing left behind",
    )
