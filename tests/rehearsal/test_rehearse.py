"""Rehearsals on every server: a good upgrade passes, and one that somebody harms does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.engine.runner import Runner
from contraflow.problems import ProblemError
from contraflow.rehearsal.faults import parse
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.alembic.project import PLAIN, Project, two_changes
from tests.cli.commandline import contraflow
from tests.rehearsal.sabotage import APART
from tests.rehearsal.shop import shop

PATIENCE = 300.0
"""Seconds; they end a test that has failed, and decide none."""
IDENTITY = Path(__file__).parents[2] / "examples" / "identity" / "alembic.ini"


SERVING = ("old release alone", "both releases", "new release alone")
"""Phases that last for some time, in which nothing but the load happens."""


def rehearse(server: Server, config: Path, **options: object) -> Rehearsal:
    url = server.address.render_as_string(hide_password=False)
    settings = {"url": url, "seconds": 1.0, "rows": 15, "workers": 3, **options}
    return Rehearsal(config=config, **settings)  # type: ignore[arg-type]


def exists(server: Server, url: sa.URL) -> bool:
    if server.kind == "sqlite":
        return Path(str(url.database)).exists()
    engine = sa.create_engine(server.address, poolclass=sa.NullPool)
    postgresql = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT datname FROM pg_database" if postgresql else "SHOW DATABASES")
        return url.database in names.scalars().all()


def drop_triggers(engine: sa.Engine, table: str) -> int:
    """Remove every trigger of a table, as a careless person would."""
    with Runner(engine) as runner, engine.begin() as connection:
        names = list(runner.adapter.find(connection, table, None).triggers)
        for name in names:
            on = f" ON {table}" if engine.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
    return len(names)


def until_written(engine: sa.Engine, times: int = 3) -> None:
    """Hold the rehearsal until clients, which go on meanwhile, have changed what is stored so many times."""
    names = [name for name in sa.inspect(engine).get_table_names() if not name.startswith("contraflow")]
    quoted = [engine.dialect.identifier_preparer.quote(name) for name in names]
    found: list[object] = []
    limit = time.monotonic() + PATIENCE
    while times >= 0:
        assert time.monotonic() < limit, "nobody writes"
        with engine.connect() as connection:
            now: list[object] = [connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in quoted]
        if now != found:
            found, times = now, times - 1
        time.sleep(0.01)


def until_apart(engine: sa.Engine, rows: int = 2) -> None:
    """Hold the rehearsal until the old and the new names of so many users are not the same."""
    limit = time.monotonic() + PATIENCE
    count = f"SELECT count(*) FROM users WHERE {APART}"
    while True:
        assert time.monotonic() < limit, "nobody writes"
        with engine.connect() as connection:
            if connection.exec_driver_sql(count).scalar_one() >= rows:
                return
        time.sleep(0.01)


def explain(record: Record) -> str:
    return "\n".join([record.reason, *map(str, record.findings)])


def test_a_good_upgrade_passes(server: Server) -> None:
    lines: list[str] = []
    urls: list[sa.URL] = []

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        assert exists(server, engine.url)
        urls.append(engine.url)
        if phase in SERVING:
            until_written(engine)

    record = rehearse(server, IDENTITY).run(progress=lines.append, meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    assert (record.old, record.new, record.server) == ("0001", "0004", server.kind.removesuffix("15"))
    names = [phase.name for phase in record.phases]
    assert [name for name in names if name in ("expand", "migrate", "verify", "contract")] == [
        *("expand", "migrate", "verify", "contract")
    ]
    assert {bucket.release for bucket in record.buckets} == {"old", "new"}
    assert record.counts["values checked"] > record.counts["reads"] > 0
    assert sum(bucket.requests for bucket in record.buckets) == record.counts["requests"]
    assert Record.from_dict(record.as_dict()) == record
    assert not exists(server, urls[0])
    assert any("contract" in line for line in lines)


def test_keys_links_defaults_and_types_of_real_schemas_pass(server: Server, tmp_path: Path) -> None:
    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase in SERVING:
            until_written(engine, 10)

    record = rehearse(server, shop(tmp_path / "shop").ini).run(meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    assert record.counts["refused alike without the upgrade"] > 0  # by a CHECK that the generated values do not know
    notes = [value for key, value in record.options.items() if key.startswith("note")]
    assert notes == [
        "audit is not written: it has no primary key, and no column whose values could tell its rows apart"
    ]


def test_an_upgrade_struck_by_faults_passes(server: Server, tmp_path: Path) -> None:
    faults = ["runner-killed@expand:3", "runner-killed@migrate:7~"]
    if server.kind != "sqlite":
        faults += ["worker-cut@both:0.1", "commit-lost@both:0.3+0.4s", "server-killed@both:0.7+0.1s"]
    project = two_changes(tmp_path / "service", "sqlite://")
    record = Rehearsal(
        config=project.ini, on=server.kind, seconds=2.0, rows=15, workers=3, faults=tuple(map(parse, faults))
    ).run()
    assert record.verdict == "passed", explain(record)
    assert sorted(fault.kind for fault in record.faults) == sorted(fault.partition("@")[0] for fault in faults)
    assert [one.outcome for one in record.tries].count("done") >= 4
    if server.kind != "sqlite":
        assert record.counts["retried"] > 0


def test_a_release_that_is_taken_back_and_comes_again_passes(server: Server) -> None:
    tables: list[dict[str, list[str]]] = []

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase in ("old release alone", "the old release alone again"):
            found = sa.inspect(engine)
            names = [name for name in sorted(found.get_table_names()) if not name.startswith("contraflow")]
            tables.append({name: sorted(column["name"] for column in found.get_columns(name)) for name in names})

    fault = parse("release-taken-back@both:0.4")
    record = rehearse(server, IDENTITY, faults=(fault,)).run(meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    assert [one.verb for one in record.tries if one.outcome == "done"] == [
        *("expand", "migrate", "verify", "rollback"),
        *("expand", "migrate", "verify", "contract"),
    ]
    assert len(tables) == 2
    assert tables[0] == tables[1]
    assert [found.kind for found in record.faults] == ["release-taken-back"]


def test_a_dropped_trigger_is_found_by_what_the_releases_read(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    dropped: list[int] = []

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "both releases":
            dropped.append(drop_triggers(engine, "users"))
        if phase == "checking every row before contract":
            until_apart(engine)

    record = rehearse(server, project.ini).run(meanwhile=meanwhile)
    assert dropped == [2]
    assert record.verdict == "failed"
    wrong = [finding for finding in record.findings if finding.kind in ("alien read", "differs")]
    assert wrong, explain(record)
    assert all(finding.table == "users" for finding in wrong)
    assert wrong[0].key.startswith("id=")
    # The history shows the write that was not carried over, and the read that told.
    last = wrong[0].history[-1]
    assert last.action in ("read", "check")
    assert any(event.action in ("insert", "update") for event in wrong[0].history)


def test_rows_that_somebody_else_writes_or_removes_are_found(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "checking every row before contract":
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM users WHERE id = 1")
                connection.exec_driver_sql("INSERT INTO users (id, fullname) VALUES (999999, 'Nobody')")

    record = rehearse(server, project.ini, seconds=0.6).run(meanwhile=meanwhile)
    found = {(finding.kind, finding.key) for finding in record.findings}
    assert {("lost", "id=1"), ("doubled", "id=999999")} <= found, explain(record)


def test_what_is_left_behind_is_found(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "new release alone":
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE INDEX stray ON users (email)")

    record = rehearse(server, project.ini, seconds=0.6).run(meanwhile=meanwhile)
    assert [finding.kind for finding in record.findings] == ["structure"], explain(record)
    assert "stray" in record.findings[0].what


def test_a_refused_upgrade_fails_with_the_problem(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "verify":
            drop_triggers(engine, "users")

    record = rehearse(server, project.ini, seconds=0.6).run(meanwhile=meanwhile)
    assert record.verdict == "failed"
    assert record.tries[-1].outcome != "done"
    assert "sync" in record.reason


def test_without_a_change_there_is_nothing_to_rehearse(tmp_path: Path) -> None:
    project = Project(tmp_path / "service", "sqlite://")
    project.revision("0001", None, PLAIN)
    with pytest.raises(ProblemError, match="CF004"):
        Rehearsal(config=project.ini).run()


def test_the_command_tells_the_verdict(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    done = contraflow("rehearse", "-c", project.ini, "0001:0003", "--seconds", "0.5", "--rows", "5", "--json")
    assert done.code == 0, done.err
    (record,) = done.document["rehearsals"]
    assert done.document["ok"] is True
    assert record["verdict"] == "passed"
    assert record["command"].startswith("contraflow -c ")
    assert "0001:0003" in record["command"]


def test_the_command_shows_the_verdict_and_writes_a_page(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    page = tmp_path / "report.html"
    options = ("--seconds", "0.5", "--rows", "5", "--report", page)
    done = contraflow("rehearse", "-c", project.ini, "0001:0003", *options)
    assert done.code == 0, done.err
    assert "PASSED in" in done.out
    assert "again: contraflow" in done.out
    assert f"the report: {page}" in done.err
    shown = page.read_text(encoding="utf-8")
    assert "Rehearsal of 0001 → 0003: passed" in shown


def test_a_page_that_cannot_be_written_is_told_before_anything_is_rehearsed(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    done = contraflow("rehearse", "-c", project.ini, "--report", tmp_path / "nowhere" / "report.html")
    assert done.code == 1
    assert "nowhere" in done.err
    assert "requests so far" not in done.err


def test_cockroachdb_is_asked_for_with_its_url(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    done = contraflow("rehearse", "-c", project.ini, "--on", "cockroachdb")
    assert done.code == 1
    assert "CF203" in done.err
    assert "--url" in done.err


@pytest.mark.only_on("postgresql")
def test_another_server_is_not_taken_for_cockroachdb(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    url = server.address.render_as_string(hide_password=False)
    done = contraflow("rehearse", "-c", project.ini, "--on", "cockroachdb", "--url", url)
    assert done.code == 1
    assert "is postgresql 18" in done.err
