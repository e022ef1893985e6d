"""The example service itself: every endpoint of both releases, each on its own tables."""

import http.client
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from contraflow.problems import ProblemError
from contraflow.rehearsal.demo.nodes import Node, find_example
from tests.servers.shared import Database

SHAPES: dict[int, dict[str, Any]] = {
    1: {"full_name": "Ann Lee", "email_addr": "ann@example.org", "enabled": True, "quota": "012"},
    2: {
        "first_name": "Ann",
        "last_name": "Lee",
        "email": "ann@example.org",
        "disabled_at": None,
        "quota_limit": 12,
    },
}
DISABLE: dict[int, dict[str, Any]] = {1: {"enabled": False}, 2: {"disabled_at": "2026-01-31T12:00:00"}}
INVALID: dict[int, list[dict[str, Any]]] = {
    1: [{"full_name": None}, {"enabled": "yes"}, {"quota": "ten"}, {"email_addr": 5}],
    2: [{"first_name": None}, {"disabled_at": "yesterday"}, {"quota_limit": "10"}, {"quota_limit": -1}],
}
PROJECTS: dict[int, dict[str, Any]] = {1: {"cost_code": "C1"}, 2: {"handle": "lab"}}


STARTER = """
import sys, time
from pathlib import Path
from contraflow.rehearsal.demo.nodes import Node, find_example

node = Node(name="n", release=1, url=sys.argv[1], example=find_example(), logs=Path(sys.argv[2]))
node.wait_until_ready()
print(node.process.pid, flush=True)
time.sleep(60)
"""


class Caller:
    """Sends requests to one node over one kept-alive connection."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=300)

    def __call__(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        self._connection.request(method, path, None if body is None else json.dumps(body), dict(headers or {}))
        response = self._connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None

    def close(self) -> None:
        self._connection.close()


def create_tables(engine: sa.Engine, release: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(find_example())
    module: Any = importlib.import_module(f"identity.release_{release}")
    module.Base.metadata.create_all(engine)


@pytest.fixture(params=[1, 2])
def release(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def call(release: int, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    create_tables(database.engine, release, monkeypatch)
    node = Node(
        name="node",
        release=release,
        url=database.url.render_as_string(hide_password=False),
        example=find_example(),
        logs=tmp_path,
    )
    try:
        node.wait_until_ready()
        caller = Caller(node)
        yield caller
        caller.close()
    finally:
        node.stop()
    assert node.process.returncode == 0
    assert node.log.read_text() == ""


def test_the_whole_api(call: Caller, release: int) -> None:
    assert call("GET", "/health") == (200, {"release": release, "node": "node"})
    users(call, release)
    projects_roles_and_tokens(call, release)


def users(call: Caller, release: int) -> None:
    shape = SHAPES[release]
    status, user = call("POST", "/users", {"name": "ann", **shape})
    assert (status, user) == (201, {"id": user["id"], "name": "ann", **shape})
    assert call("POST", "/users", {"name": "ann", **shape})[0] == 409
    assert call("GET", f"/users/{user['id']}") == (200, user)
    assert call("GET", f"/users/{'0' * 32}")[0] == 404
    assert call("GET", "/users") == (200, {"items": [user]})
    assert call("GET", f"/users?after={user['id']}") == (200, {"items": []})
    for body in INVALID[release]:
        assert call("PATCH", f"/users/{user['id']}", body)[0] == 400, body
    assert call("POST", "/users", {"name": "bo"})[0] == 400
    assert call("PATCH", f"/users/{user['id']}", DISABLE[release]) == (200, {**user, **DISABLE[release]})
    assert call("GET", f"/users/{user['id']}") == (200, {**user, **DISABLE[release]})


def projects_roles_and_tokens(call: Caller, release: int) -> None:
    _, user = call("POST", "/users", {"name": "cher", "password": "one", **SHAPES[release]})
    status, project = call("POST", "/projects", {"name": "Lab", "description": None, **PROJECTS[release]})
    assert (status, project["name"]) == (201, "Lab")
    assert call("POST", "/projects", {"name": "Lab", **PROJECTS[release]})[0] == 409
    path = f"/projects/{project['id']}"
    assert call("PATCH", path, {"description": "50 %"}) == (200, {**project, "description": "50 %"})
    assert call("GET", path) == (200, {**project, "description": "50 %"})
    assert call("GET", "/projects") == (200, {"items": [{**project, "description": "50 %"}]})

    roles = f"{path}/users/{user['id']}/roles"
    login = {"name": "cher", "password": "one", "project_id": project["id"]}
    assert call("POST", "/tokens", login)[0] == 403
    assert call("PUT", f"{roles}/member") == (204, None)
    assert call("PUT", f"{roles}/member") == (204, None)
    assert call("GET", roles) == (200, {"roles": ["member"]})
    status, issued = call("POST", "/tokens", login)
    assert (status, issued["user"], issued["roles"]) == (201, user, ["member"])

    token = {"X-Subject-Token": issued.pop("token")}
    assert call("GET", "/tokens", headers=token) == (200, issued)
    assert call("PATCH", f"/users/{user['id']}", DISABLE[release])[0] == 200
    assert call("GET", "/tokens", headers=token)[0] == 403
    assert call("POST", "/tokens", login)[0] == 403
    enabled = {key: SHAPES[release][key] for key in DISABLE[release]}
    assert call("PATCH", f"/users/{user['id']}", enabled) == (200, user)
    assert call("DELETE", "/tokens", headers=token) == (204, None)
    assert call("GET", "/tokens", headers=token)[0] == 404

    assert call("PUT", f"/users/{user['id']}/password", {"password": "two"}) == (204, None)
    assert call("POST", "/tokens", login)[0] == 401
    assert call("POST", "/tokens", {**login, "password": "two"})[0] == 201
    assert call("DELETE", f"{roles}/member") == (204, None)
    assert call("DELETE", f"{roles}/member")[0] == 404
    assert call("DELETE", path) == (204, None)
    assert call("GET", path)[0] == 404


@pytest.mark.only_on("sqlite")
def test_bad_requests_are_answered_and_the_connection_stays_usable(call: Caller) -> None:
    assert call("GET", "/nothing")[0] == 404
    assert call("DELETE", "/users")[0] == 405
    assert call("POST", "/users", [1])[0] == 400
    assert call("GET", "/health")[0] == 200


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_a_transaction_that_lost_a_conflict_is_run_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    conflict = {
        "postgresql": "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$",
        "mysql": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1412",
    }["postgresql" if database.engine.dialect.name == "postgresql" else "mysql"]
    monkeypatch.syspath_prepend(find_example())
    module: Any = importlib.import_module("identity.database")
    service = module.Database(database.url.render_as_string(hide_password=False))
    calls: list[int] = []

    def work(session: Session) -> str:
        calls.append(len(calls))
        if len(calls) < 3:
            session.execute(sa.text(conflict))
        return "done"

    assert service.write(work) == "done"
    assert calls == [0, 1, 2]

    def fail(session: Session) -> None:
        calls.append(len(calls))
        session.execute(sa.text("SELECT nothing FROM nowhere"))

    with pytest.raises(sa.exc.ProgrammingError):
        service.read(fail)
    assert len(calls) == 4
    service.close()


def test_a_node_without_a_database_says_why(tmp_path: Path) -> None:
    node = Node(
        name="lost",
        release=1,
        url=f"sqlite:///{tmp_path}/missing/identity.db",
        example=find_example(),
        logs=tmp_path,
    )
    with pytest.raises(ProblemError, match=r"CF201: node lost did not start: .*unable to open database file"):
        node.wait_until_ready()
    assert node.process.returncode == 1


def test_a_node_ends_with_its_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter is killed: nothing is closed in good order, only its end of the pipe goes."""
    url = f"sqlite:///{tmp_path}/identity.db"
    create_tables(sa.create_engine(url), 1, monkeypatch)
    starter = subprocess.Popen([sys.executable, "-c", STARTER, url, str(tmp_path)], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    try:
        pid = int(starter.stdout.readline())
        starter.kill()
        starter.wait()
        assert ended(pid)
    finally:
        starter.kill()
        starter.wait()
        starter.stdout.close()


def ended(pid: int) -> bool:
    """Whether the process ends soon; a zombie has ended."""
    try:
        psutil.Process(pid).wait(300)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True
