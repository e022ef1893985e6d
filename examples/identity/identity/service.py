"""The HTTP API, the same handlers for every release.

========================================== =============================================
``GET /health``                            release and name of this node
``POST /users``, ``GET /users?after=ID``   create; list in the order of ids
``GET /users/ID``, ``PATCH /users/ID``     read; change the given fields
``PUT /users/ID/password``                 set the password
``POST /projects``, ``GET /projects``      create; list in the order of ids
``GET``, ``PATCH``, ``DELETE /projects/ID``
``GET /projects/ID/users/ID/roles``        the roles of a user in a project
``PUT``, ``DELETE .../roles/NAME``         grant, revoke
``POST /tokens``                           name, password, project_id or none: issue
``GET``, ``DELETE /tokens``                validate, revoke the token in X-Subject-Token
========================================== =============================================
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .database import Database
from .passwords import check_password, hash_password, hash_token, new_token
from .release import BadRequestError, Body, Release, now, optional_text, text

TOKEN_LIFETIME = timedelta(hours=1)
PAGE = 50


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Body


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: object = None


class RefusedError(Exception):
    """The request is understood and not carried out."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class Service:
    """One node's answers to requests."""

    def __init__(self, release: Release, database: Database, name: str) -> None:
        self.release = release
        self.database = database
        self.name = name

    def answer(self, request: Request) -> Answer:
        """The answer to ``request``. An error of the database comes through as it is."""
        known_path = False
        for method, pattern, handler in _ROUTES:
            if found := pattern.fullmatch(request.path):
                known_path = True
                if method == request.method:
                    try:
                        return handler(self, request, *found.groups())
                    except BadRequestError as error:
                        return Answer(status=400, body={"error": str(error)})
                    except RefusedError as error:
                        return Answer(status=error.status, body={"error": str(error)})
        return Answer(status=405 if known_path else 404, body={"error": f"no {request.method} {request.path}"})

    def health(self, _request: Request) -> Answer:
        self.database.read(lambda session: session.execute(sa.select(1)))
        return Answer(status=200, body={"release": self.release.number, "node": self.name})

    # users

    def create_user(self, request: Request) -> Answer:
        def work(session: Session) -> Answer:
            user = self.release.user(id=uuid.uuid4().hex, created_at=now())
            user.name = text(request.body, "name", limit=64)
            self.release.fill_user(user, request.body)
            session.add(user)
            _flush_unique(session, "name")
            if "password" in request.body:
                self._set_password(session, user.id, request.body)
            return Answer(status=201, body=self.release.show_user(user))

        return self.database.write(work)

    def list_users(self, request: Request) -> Answer:
        return self._list(request, self.release.user, self.release.show_user)

    def read_user(self, _request: Request, user_id: str) -> Answer:
        return self.database.read(
            lambda session: Answer(status=200, body=self.release.show_user(self._user(session, user_id)))
        )

    def update_user(self, request: Request, user_id: str) -> Answer:
        def work(session: Session) -> Answer:
            user = self._user(session, user_id, for_update=True)
            self.release.fill_user(user, request.body)
            return Answer(status=200, body=self.release.show_user(user))

        return self.database.write(work)

    def set_password(self, request: Request, user_id: str) -> Answer:
        def work(session: Session) -> Answer:
            self._user(session, user_id, for_update=True)
            self._set_password(session, user_id, request.body)
            return Answer(status=204)

        return self.database.write(work)

    # projects and roles

    def create_project(self, request: Request) -> Answer:
        def work(session: Session) -> Answer:
            project = self.release.project(id=uuid.uuid4().hex, created_at=now())
            project.name = text(request.body, "name", limit=64)
            self.release.fill_project(project, request.body)
            session.add(project)
            _flush_unique(session, "name")
            return Answer(status=201, body=self.release.show_project(project))

        return self.database.write(work)

    def list_projects(self, request: Request) -> Answer:
        return self._list(request, self.release.project, self.release.show_project)

    def read_project(self, _request: Request, project_id: str) -> Answer:
        return self.database.read(
            lambda session: Answer(status=200, body=self.release.show_project(self._project(session, project_id)))
        )

    def update_project(self, request: Request, project_id: str) -> Answer:
        def work(session: Session) -> Answer:
            project = self._project(session, project_id, for_update=True)
            self.release.fill_project(project, request.body)
            return Answer(status=200, body=self.release.show_project(project))

        return self.database.write(work)

    def delete_project(self, _request: Request, project_id: str) -> Answer:
        def work(session: Session) -> Answer:
            project = self._project(session, project_id, for_update=True)
            for model in (self.release.assignment, self.release.token):
                session.execute(sa.delete(model).where(model.project_id == project_id))
            session.delete(project)
            return Answer(status=204)

        return self.database.write(work)

    def list_roles(self, _request: Request, project_id: str, user_id: str) -> Answer:
        def work(session: Session) -> Answer:
            self._project(session, project_id)
            self._user(session, user_id)
            return Answer(status=200, body={"roles": self._roles(session, project_id, user_id)})

        return self.database.read(work)

    def grant_role(self, _request: Request, project_id: str, user_id: str, role: str) -> Answer:
        def work(session: Session) -> Answer:
            self._project(session, project_id)
            self._user(session, user_id)
            key = {"project_id": project_id, "user_id": user_id, "role": role}
            if session.get(self.release.assignment, key) is None:
                session.add(self.release.assignment(**key))
            return Answer(status=204)

        return self.database.write(work)

    def revoke_role(self, _request: Request, project_id: str, user_id: str, role: str) -> Answer:
        def work(session: Session) -> Answer:
            key = {"project_id": project_id, "user_id": user_id, "role": role}
            assignment = session.get(self.release.assignment, key)
            if assignment is None:
                raise RefusedError(404, "no such assignment")
            session.delete(assignment)
            return Answer(status=204)

        return self.database.write(work)

    # tokens

    def issue_token(self, request: Request) -> Answer:
        name = text(request.body, "name", limit=64)
        password = text(request.body, "password", limit=255)
        project_id = optional_text(request.body, "project_id", limit=32)
        token = new_token()

        def work(session: Session) -> Answer:
            user = session.scalar(sa.select(self.release.user).where(self.release.user.name == name))
            credential = None if user is None else session.get(self.release.credential, user.id)
            if user is None or credential is None or not check_password(password, credential.password_hash):
                raise RefusedError(401, "unknown name or wrong password")
            if not self.release.may_log_in(user):
                raise RefusedError(403, "the user is disabled")
            if project_id is not None and not self._roles(session, project_id, user.id):
                raise RefusedError(403, "the user has no role in this project")
            issued = now()
            record = self.release.token(
                id=hash_token(token),
                user_id=user.id,
                project_id=project_id,
                issued_at=issued,
                expires_at=issued + TOKEN_LIFETIME,
                revoked_at=None,
            )
            session.add(record)
            return Answer(status=201, body={"token": token, **self._show_token(session, record, user)})

        return self.database.write(work)

    def validate_token(self, request: Request) -> Answer:
        def work(session: Session) -> Answer:
            record = self._valid_token(session, request)
            user = self._user(session, record.user_id)
            if not self.release.may_log_in(user):
                raise RefusedError(403, "the user is disabled")
            return Answer(status=200, body=self._show_token(session, record, user))

        return self.database.read(work)

    def revoke_token(self, request: Request) -> Answer:
        def work(session: Session) -> Answer:
            self._valid_token(session, request).revoked_at = now()
            return Answer(status=204)

        return self.database.write(work)

    # helpers

    def _list(self, request: Request, model: type[Any], show: Callable[[Any], dict[str, object]]) -> Answer:
        def work(session: Session) -> Answer:
            page = session.scalars(
                sa.select(model).where(model.id > request.query.get("after", "")).order_by(model.id).limit(PAGE)
            )
            return Answer(status=200, body={"items": [show(item) for item in page]})

        return self.database.read(work)

    def _user(self, session: Session, user_id: str, *, for_update: bool = False) -> Any:
        return _get(session, self.release.user, user_id, "user", for_update=for_update)

    def _project(self, session: Session, project_id: str, *, for_update: bool = False) -> Any:
        return _get(session, self.release.project, project_id, "project", for_update=for_update)

    def _set_password(self, session: Session, user_id: str, body: Body) -> None:
        hashed = hash_password(text(body, "password", limit=255))
        credential = session.get(self.release.credential, user_id)
        if credential is None:
            session.add(self.release.credential(user_id=user_id, password_hash=hashed, changed_at=now()))
        else:
            credential.password_hash = hashed
            credential.changed_at = now()

    def _roles(self, session: Session, project_id: str, user_id: str) -> list[str]:
        model = self.release.assignment
        found = session.scalars(sa.select(model.role).where(model.project_id == project_id, model.user_id == user_id))
        return sorted(found)

    def _valid_token(self, session: Session, request: Request) -> Any:
        token = request.headers.get("x-subject-token", "")
        record = session.get(self.release.token, hash_token(token))
        if record is None or record.revoked_at is not None or record.expires_at <= now():
            raise RefusedError(404, "no such token")
        return record

    def _show_token(self, session: Session, record: Any, user: Any) -> dict[str, object]:
        project = record.project_id
        return {
            "user": self.release.show_user(user),
            "project_id": project,
            "roles": [] if project is None else self._roles(session, project, user.id),
            "expires_at": record.expires_at.isoformat(),
        }


def _get(session: Session, model: type[Any], key: str, what: str, *, for_update: bool) -> Any:
    found = session.get(model, key, with_for_update=for_update)
    if found is None:
        raise RefusedError(404, f"no such {what}")
    return found


def _flush_unique(session: Session, field: str) -> None:
    try:
        session.flush()
    except sa.exc.IntegrityError as error:
        raise RefusedError(409, f"this {field} is taken") from error


Handler = Callable[..., Answer]
_ID = "([0-9a-f]{32})"
_ROLES = f"/projects/{_ID}/users/{_ID}/roles"
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(path), handler)
    for method, path, handler in (
        ("GET", "/health", Service.health),
        ("POST", "/users", Service.create_user),
        ("GET", "/users", Service.list_users),
        ("GET", f"/users/{_ID}", Service.read_user),
        ("PATCH", f"/users/{_ID}", Service.update_user),
        ("PUT", f"/users/{_ID}/password", Service.set_password),
        ("POST", "/projects", Service.create_project),
        ("GET", "/projects", Service.list_projects),
        ("GET", f"/projects/{_ID}", Service.read_project),
        ("PATCH", f"/projects/{_ID}", Service.update_project),
        ("DELETE", f"/projects/{_ID}", Service.delete_project),
        ("GET", _ROLES, Service.list_roles),
        ("PUT", _ROLES + "/([a-z]{1,32})", Service.grant_role),
        ("DELETE", _ROLES + "/([a-z]{1,32})", Service.revoke_role),
        ("POST", "/tokens", Service.issue_token),
        ("GET", "/tokens", Service.validate_token),
        ("DELETE", "/tokens", Service.revoke_token),
    )
]
