"""`Change`: what one Alembic revision declares."""

from __future__ import annotations

from typing import Any

from alembic.script import Script

from contraflow.operations.base import Operation
from contraflow.operations.planning import Declared
from contraflow.problems import Problem, ProblemError

__all__ = ["Change", "change_of", "declared"]


class Change:
    """What one Alembic revision declares: an ordered list of operations.

    A revision module exposes it as its own two functions, and holds nothing else that acts::

        change = Change(RenameColumn(table="users", old="fullname", new="display_name"))
        upgrade, downgrade = change.upgrade, change.downgrade

    ``alembic upgrade`` collects the Changes of all revisions it is about to run, plans them as one set and runs
    that set once: expand, migrate and verify, on connections of the engine's own. ``alembic downgrade`` rolls the
    whole set back, which is possible until it is contracted.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if there is no operation, or something else.
    """

    def __init__(self, *operations: Operation) -> None:
        if not operations:
            raise ProblemError(
                Problem(
                    code="CF116",
                    what="a Change without operations declares nothing.",
                    instead="name at least one operation: Change(RenameColumn(...)).",
                )
            )
        for operation in operations:
            if not isinstance(operation, Operation):
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"a Change was given {operation!r}, which is not an operation.",
                        instead="give the operations one by one: Change(RenameColumn(...), AddColumn(...)).",
                    )
                )
        self._operations = operations

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations, in their order."""
        return self._operations

    def __repr__(self) -> str:
        return f"Change({', '.join(map(repr, self._operations))})"

    def upgrade(self, **arguments: Any) -> None:
        """Carry out the set that this Change belongs to, if this run has not done it yet. Called by Alembic.

        Takes, and does not need, whatever ``env.py`` passes to ``context.run_migrations()``; but refuses (``CF302``)
        the ``engine_name`` of Alembic's multidb template.

        Raises :class:`~contraflow.alembic.running.ChangeError`: a ``ProblemError`` that Alembic reports without a
        traceback.
        """
        # Imported here: running finds Changes in revisions, and so needs this module.
        from contraflow.alembic import running

        running.upgrade(self, arguments)

    def downgrade(self, **arguments: Any) -> None:
        """Roll back the set that this Change belongs to, if this run has not done it yet. Called by Alembic.

        Raises :class:`~contraflow.alembic.running.ChangeError`, with ``CF303`` after contract.
        """
        from contraflow.alembic import running

        running.downgrade(self, arguments)


def change_of(script: Script) -> Change | None:
    """The Change that a revision exposes as its ``upgrade`` and ``downgrade``, or None for a plain revision.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF302`` if only one of the two is the Change's.
    """
    up, down = (_owner(script, name) for name in ("upgrade", "downgrade"))
    if up is not down:
        raise ProblemError(
            Problem(
                code="CF302",
                what=f"revision {script.revision} exposes a Change as only one of upgrade and downgrade.",
                why="what one of them does, the other could not undo.",
                instead="write: upgrade, downgrade = change.upgrade, change.downgrade\n"
                "and put plain op.* calls into a revision of their own.",
            )
        )
    return up


def _owner(script: Script, name: str) -> Change | None:
    owner = getattr(getattr(script.module, name, None), "__self__", None)
    return owner if isinstance(owner, Change) else None


def declared(script: Script) -> Declared | None:
    """What a revision declares, in the planner's terms, or None for a plain revision. Raises as :func:`change_of`."""
    change = change_of(script)
    if change is None:
        return None
    return Declared(revision=script.revision, operations=change.operations, doc=script.doc or "")
