"""The load: clients that use the whole API of the example service and tell the oracle what was done."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contraflow.rehearsal.demo import values
from contraflow.rehearsal.demo.nodes import Balancer, Node
from contraflow.rehearsal.demo.oracle import Difference, ProjectModel, TokenModel, UserModel, utc_now
from contraflow.rehearsal.gate import Gate

__all__ = ["Client", "Sample"]

_TIMEOUT_SECONDS = 30.0
_ROLES = ("admin", "member", "reader")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answered request: when it was sent (monotonic seconds), how long it took, and who answered."""

    sent: float
    seconds: float
    release: int
    write: bool


@dataclass(kw_only=True)
class Tally:
    """What one client has seen."""

    samples: list[Sample] = field(default_factory=list)
    values: int = 0
    failures: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


class FailedError(Exception):
    """A request got no answer, or one that its sender cannot accept."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A node's answer."""

    node: Node
    status: int
    body: dict[str, Any]
    began: dt.datetime


class Client(threading.Thread):
    """Sends one request after the other, ``rate`` a second on average, about users and projects of its own.

    :ivar tally: what was seen; read it when the client stands still or has ended.
    """

    def __init__(
        self,
        *,
        number: int,
        seed: int,
        rate: float,
        balancer: Balancer,
        gate: Gate,
        users: list[UserModel],
        projects: list[ProjectModel],
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.tally = Tally()
        self.users = users
        self.projects = projects
        self.tokens: list[TokenModel] = []
        self._number = number
        self._rng = random.Random(f"{seed}/{number}")  # noqa: S311 - repeatable on purpose
        self._interval = 1 / rate
        self._balancer = balancer
        self._gate = gate
        self._stopping = threading.Event()
        self._connections: dict[Node, http.client.HTTPConnection] = {}
        self._made = 0
        self._by_id = {user.id: user for user in users}

    def stop(self) -> None:
        """End after the operation under way; does not wait for it."""
        self._stopping.set()

    def run(self) -> None:
        """Send requests until stopped."""
        operations, weights = zip(*_OPERATIONS, strict=True)
        due = time.monotonic()
        try:
            while not self._stopping.is_set():
                self._gate.pause()
                operation = self._rng.choices(operations, weights)[0]
                try:
                    operation(self)
                except FailedError as failure:
                    self.tally.failures.append(str(failure))
                except Exception as error:  # noqa: BLE001 - no failure may go unseen
                    self.tally.failures.append(f"{operation.__name__}: {type(error).__name__}: {error}")
                due += self._interval * self._rng.uniform(0.5, 1.5)
                due = max(due, time.monotonic() - self._interval)  # no burst after a stall
                self._stopping.wait(max(0.0, due - time.monotonic()))
        finally:
            for connection in self._connections.values():
                connection.close()
            self._gate.leave()

    # users

    def read_user(self) -> None:
        """One user, by id."""
        user = self._rng.choice(self.users)
        answer = self._call("GET", f"/users/{user.id}", expect=200)
        self._compare_user(user, answer, answer.body)

    def list_users(self) -> None:
        """A page of users, of which only this client's own can be judged."""
        start = self._rng.choice(self.users)
        answer = self._call("GET", f"/users?after={start.id}", expect=200)
        for item in answer.body["items"]:
            if item["id"] in self._by_id:
                self._compare_user(self._by_id[item["id"]], answer, item)

    def create_user(self) -> None:
        """A user with a password."""
        self._made += 1
        name, password = f"user-{self._number}-{self._made}", f"pw-{self._rng.random()}"

        def body(release: int) -> dict[str, Any]:
            return {"name": name, "password": password, **values.new_user(self._rng, release)}

        answer, sent = self._call_shaped("POST", "/users", body, expect=201)
        user = UserModel(id=answer.body["id"], name=name, password=password)
        user.write(answer.node.release, sent, answer.began, verb="insert")
        self.users.append(user)
        self._by_id[user.id] = user
        self._compare_user(user, answer, answer.body)

    def create_duplicate(self) -> None:
        """A user with a name that is taken, which must be refused."""
        name = self._rng.choice(self.users).name
        self._call_shaped(
            "POST",
            "/users",
            lambda release: {"name": name, **values.new_user(self._rng, release)},
            expect=409,
        )

    def update_user(self) -> None:
        """Some fields of one user, in the shape of whichever release gets the request."""
        user = self._rng.choice(self.users)
        with _Tainting(user):
            answer, sent = self._call_shaped(
                "PATCH",
                f"/users/{user.id}",
                lambda release: values.change_user(self._rng, release, user),
                expect=200,
            )
        user.write(answer.node.release, sent, answer.began)
        self._compare_user(user, answer, answer.body)

    def set_password(self) -> None:
        """A new password for one user."""
        user = self._rng.choice(self.users)
        password = f"pw-{self._rng.random()}"
        with _Tainting(user):
            self._call("PUT", f"/users/{user.id}/password", {"password": password}, expect=204)
        user.password = password

    # projects and roles

    def read_project(self) -> None:
        """One project, by id."""
        project = self._rng.choice(self.projects)
        answer = self._call("GET", f"/projects/{project.id}", expect=200)
        self._compare(project, answer, answer.body)

    def create_project(self) -> None:
        """A project."""
        self._made += 1
        name = f"Project-{self._number}-{self._made}"
        answer, sent = self._call_shaped(
            "POST",
            "/projects",
            lambda release: {"name": name, **values.new_project(self._rng, release)},
            expect=201,
        )
        project = ProjectModel(id=answer.body["id"], name=name)
        project.create(answer.node.release, sent)
        self.projects.append(project)
        self._compare(project, answer, answer.body)

    def update_project(self) -> None:
        """Some fields of one project."""
        project = self._rng.choice(self.projects)
        with _Tainting(project):
            answer, sent = self._call_shaped(
                "PATCH",
                f"/projects/{project.id}",
                lambda release: values.change_project(self._rng, release),
                expect=200,
            )
        project.update(answer.node.release, sent)
        self._compare(project, answer, answer.body)

    def delete_project(self) -> None:
        """One project, with its roles and tokens."""
        if len(self.projects) < 3:
            return
        project = self._rng.choice(self.projects)
        with _Tainting(project):
            self._call("DELETE", f"/projects/{project.id}", expect=204)
        self.projects.remove(project)
        self.tokens = [token for token in self.tokens if token.project is not project]

    def grant_role(self) -> None:
        """A role for one user in one project."""
        user, project, role = (
            self._rng.choice(self.users),
            self._rng.choice(self.projects),
            self._rng.choice(_ROLES),
        )
        with _Tainting(project):
            self._call("PUT", f"/projects/{project.id}/users/{user.id}/roles/{role}", expect=204)
        project.roles.setdefault(user.id, set()).add(role)

    def revoke_role(self) -> None:
        """A role that was granted."""
        granted = [(project, user) for project in self.projects for user in project.roles]
        if not granted:
            return
        project, user_id = self._rng.choice(granted)
        role = self._rng.choice(sorted(project.roles[user_id]))
        with _Tainting(project):
            self._call("DELETE", f"/projects/{project.id}/users/{user_id}/roles/{role}", expect=204)
        project.roles[user_id].remove(role)
        if not project.roles[user_id]:
            del project.roles[user_id]

    def read_roles(self) -> None:
        """The roles of one user in one project."""
        project = self._rng.choice(self.projects)
        user_id = self._rng.choice([*project.roles, self._rng.choice(self.users).id])
        answer = self._call("GET", f"/projects/{project.id}/users/{user_id}/roles", expect=200)
        self._judge_roles(project, user_id, answer)

    # tokens

    def issue_token(self) -> None:
        """Name and password, right or wrong, of a user who is enabled or not: each has its answer."""
        user = self._rng.choice(self.users)
        mine = [project for project in self.projects if user.id in project.roles]
        project = self._rng.choice([None, *mine])
        wrong = self._rng.random() < 0.1
        body = {"name": user.name, "password": "wrong" if wrong else user.password or "none was set"}
        if project is not None:
            body["project_id"] = project.id
        expect = 401 if wrong or user.password is None else 201 if user.enabled else 403
        answer = self._call("POST", "/tokens", body, expect=expect, about=user)
        if answer.status == 201:
            self.tokens.append(TokenModel(token=answer.body["token"], user=user, project=project))
            self._judge_token(self.tokens[-1], answer)

    def validate_token(self) -> None:
        """A token that may be revoked, of a user who may be disabled."""
        if not self.tokens:
            return
        token = self._rng.choice(self.tokens)
        expect = 404 if token.revoked else 200 if token.user.enabled else 403
        answer = self._call("GET", "/tokens", token=token, expect=expect, about=token.user)
        if answer.status == 200:
            self._judge_token(token, answer)

    def revoke_token(self) -> None:
        """A token that is valid."""
        valid = [token for token in self.tokens if not token.revoked]
        if valid:
            token = self._rng.choice(valid)
            self._call("DELETE", "/tokens", token=token, expect=204)
            token.revoked = True

    # judging

    def _compare_user(self, user: UserModel, answer: Answer, found: Mapping[str, Any]) -> None:
        shaped = dict(found)
        if isinstance(shaped.get("disabled_at"), str):
            shaped["disabled_at"] = dt.datetime.fromisoformat(shaped["disabled_at"])
        self._compare(user, answer, shaped)

    def _compare(self, model: UserModel | ProjectModel, answer: Answer, found: Mapping[str, Any]) -> None:
        if not model.tainted:
            where = f"read through release {answer.node.release}"
            self.tally.values += len(model.shape(answer.node.release))
            self.tally.differences.extend(model.compare(answer.node.release, found, where))

    def _judge_token(self, token: TokenModel, answer: Answer) -> None:
        self._compare_user(token.user, answer, answer.body["user"])
        if token.project is not None:
            self._judge_roles(token.project, token.user.id, answer)

    def _judge_roles(self, project: ProjectModel, user_id: str, answer: Answer) -> None:
        expected = sorted(project.roles.get(user_id, ()))
        self.tally.values += 1
        if not project.tainted and answer.body["roles"] != expected:
            self.tally.differences.append(
                Difference(
                    subject=f"project {project.name}",
                    field=f"roles of user {user_id}",
                    expected=expected,
                    found=answer.body["roles"],
                    where=f"read through release {answer.node.release}",
                )
            )

    # sending

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        expect: int,
        token: TokenModel | None = None,
        about: UserModel | None = None,
    ) -> Answer:
        answer, _ = self._call_shaped(method, path, lambda _: body, expect=expect, token=token, about=about)
        return answer

    def _call_shaped(
        self,
        method: str,
        path: str,
        shape: Callable[[int], Mapping[str, Any] | None],
        *,
        expect: int,
        token: TokenModel | None = None,
        about: UserModel | None = None,
    ) -> tuple[Answer, Mapping[str, Any]]:
        """Send a request to any node, with the body that its release understands.

        ``about`` is the user whose state in the model makes ``expect`` the right answer: another answer of
        the service's is then a difference, not a failure.
        """
        with self._balancer.pick(self._rng) as node:
            body = shape(node.release)
            answer = self._send(node, method, path, body, token)
        if answer.status == expect:
            return answer, body or {}
        said = answer.body.get("error", "")
        request = f"{method} {path.partition('?')[0]} to {node.name} (release {node.release})"
        if about is not None and answer.status < 500:
            if not about.tainted:
                self.tally.differences.append(
                    Difference(
                        subject=f"user {about.name}",
                        field="status",
                        expected=expect,
                        found=answer.status,
                        where=f"{request}: {said}",
                        writes=tuple(about.writes),
                    )
                )
            return answer, body or {}
        raise FailedError(f"{request}: status {answer.status} instead of {expect}: {said}")

    def _send(
        self, node: Node, method: str, path: str, body: Mapping[str, Any] | None, token: TokenModel | None
    ) -> Answer:
        connection = self._connections.get(node)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=_TIMEOUT_SECONDS)
            self._connections[node] = connection
        headers = {} if token is None else {"X-Subject-Token": token.token}
        content = None if body is None else json.dumps(body)
        began, sent = utc_now(), time.monotonic()
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            answered = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            reason = f"{type(error).__name__}: {error}"
            raise FailedError(
                f"{method} {path.partition('?')[0]} to {node.name} (release {node.release}): {reason}"
            ) from error
        seconds = time.monotonic() - sent
        self.tally.samples.append(Sample(sent=sent, seconds=seconds, release=node.release, write=method != "GET"))
        parsed = json.loads(answered) if answered else {}
        return Answer(node=node, status=response.status, body=parsed, began=began)


class _Tainting:
    """A write whose answer is not what it should be leaves its row unknown: it may be done or not."""

    def __init__(self, model: UserModel | ProjectModel) -> None:
        self._model = model

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None:
            self._model.tainted = True


_OPERATIONS: tuple[tuple[Callable[[Client], None], int], ...] = (
    (Client.read_user, 26),
    (Client.list_users, 4),
    (Client.create_user, 7),
    (Client.create_duplicate, 1),
    (Client.update_user, 24),
    (Client.set_password, 5),
    (Client.read_project, 5),
    (Client.create_project, 2),
    (Client.update_project, 5),
    (Client.delete_project, 1),
    (Client.grant_role, 4),
    (Client.revoke_role, 2),
    (Client.read_roles, 3),
    (Client.issue_token, 7),
    (Client.validate_token, 6),
    (Client.revoke_token, 2),
)
