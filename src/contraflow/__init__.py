"""Contraflow: zero-downtime database upgrades for SQLAlchemy services.

A release N and its successor N+1 run side by side on one live SQL database. What either writes, the other
reads in its own shape. Declare
how the columns correspond, once, in an ordinary Alembic revision::

    from contraflow import Change, RenameColumn

    revision, down_revision = "a1f3", "09bc"
    change = Change(RenameColumn(table="users", old="fullname", new="display_name"))
    upgrade, downgrade = change.upgrade, change.downgrade

then ``contraflow upgrade``, roll the nodes, ``contraflow contract``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contraflow.alembic.change import Change
    from contraflow.copies import Source, Through
    from contraflow.engine.nodes import Heartbeat
    from contraflow.engine.report import Options, PlanReport, Progress, State, Status
    from contraflow.engine.runner import Runner
    from contraflow.expressions.trees import NewUuid
    from contraflow.faults import (
        AlreadyExists,
        BadSyntax,
        Cancelled,
        CheckViolation,
        CommittedInPart,
        CommitUnknown,
        ConstraintViolation,
        DatabaseFault,
        Deadlock,
        Disconnected,
        DuplicateKey,
        ExclusionViolation,
        Fault,
        ForeignKeyViolation,
        InvalidData,
        LockTimeout,
        NoSuchColumn,
        NoSuchDatabase,
        NoSuchTable,
        NotNullViolation,
        OutOfResources,
        PermissionDenied,
        RaisedByDatabase,
        ReadOnly,
        SchemaChanged,
        SerializationFailure,
        StatementTimeout,
        TransactionAborted,
        TransientFault,
        Unavailable,
        classify,
    )
    from contraflow.install import install
    from contraflow.lens import Lens
    from contraflow.opaque import Opaque
    from contraflow.operations.attributes import ChangeDefault
    from contraflow.operations.columns import AddColumn, ChangeType, DropColumn, RenameColumn, TransformColumns
    from contraflow.operations.comments import ChangeComment
    from contraflow.operations.constraints import (
        AddCheck,
        AddExclusion,
        AddForeignKey,
        DropCheck,
        DropExclusion,
        DropForeignKey,
    )
    from contraflow.operations.copying import CopyColumn
    from contraflow.operations.enums import AddEnumValues
    from contraflow.operations.indexes import AddUnique, CreateIndex, DropIndex, DropUnique
    from contraflow.operations.keys import AddPrimaryKey, AddSurrogateKey, DropPrimaryKey
    from contraflow.operations.moves import MoveColumns
    from contraflow.operations.nullability import LoosenNotNull, TightenNotNull
    from contraflow.operations.opaque import OpaqueColumns
    from contraflow.operations.parts import CopyTable, MergeTables, SplitTable
    from contraflow.operations.planning import Declared, Upgrade
    from contraflow.operations.references import AddCompanion, ReferColumns
    from contraflow.operations.replacing import KeyReference, ReplaceKey
    from contraflow.operations.tables import CreateTable, DropTable, RenameTable
    from contraflow.operations.widening import WidenColumn
    from contraflow.problems import ContraflowError, Interrupted, Problem, ProblemError
    from contraflow.retry import Attempt, RetryOptions, TransactionMisused, retry, run_transaction
    from contraflow.writer import OpaqueWriter

__all__ = [
    "AddCheck",
    "AddColumn",
    "AddCompanion",
    "AddEnumValues",
    "AddExclusion",
    "AddForeignKey",
    "AddPrimaryKey",
    "AddSurrogateKey",
    "AddUnique",
    "AlreadyExists",
    "Attempt",
    "BadSyntax",
    "Cancelled",
    "Change",
    "ChangeComment",
    "ChangeDefault",
    "ChangeType",
    "CheckViolation",
    "CommitUnknown",
    "CommittedInPart",
    "ConstraintViolation",
    "ContraflowError",
    "CopyColumn",
    "CopyTable",
    "CreateIndex",
    "CreateTable",
    "DatabaseFault",
    "Deadlock",
    "Declared",
    "Disconnected",
    "DropCheck",
    "DropColumn",
    "DropExclusion",
    "DropForeignKey",
    "DropIndex",
    "DropPrimaryKey",
    "DropTable",
    "DropUnique",
    "DuplicateKey",
    "ExclusionViolation",
    "Fault",
    "ForeignKeyViolation",
    "Heartbeat",
    "Interrupted",
    "InvalidData",
    "KeyReference",
    "Lens",
    "LockTimeout",
    "LoosenNotNull",
    "MergeTables",
    "MoveColumns",
    "NewUuid",
    "NoSuchColumn",
    "NoSuchDatabase",
    "NoSuchTable",
    "NotNullViolation",
    "Opaque",
    "OpaqueColumns",
    "OpaqueWriter",
    "Options",
    "OutOfResources",
    "PermissionDenied",
    "PlanReport",
    "Problem",
    "ProblemError",
    "Progress",
    "RaisedByDatabase",
    "ReadOnly",
    "ReferColumns",
    "RenameColumn",
    "RenameTable",
    "ReplaceKey",
    "RetryOptions",
    "Runner",
    "SchemaChanged",
    "SerializationFailure",
    "Source",
    "SplitTable",
    "State",
    "StatementTimeout",
    "Status",
    "Through",
    "TightenNotNull",
    "TransactionAborted",
    "TransactionMisused",
    "TransformColumns",
    "TransientFault",
    "Unavailable",
    "Upgrade",
    "WidenColumn",
    "classify",
    "install",
    "retry",
    "run_transaction",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "alembic.change": ("Change",),
    "copies": ("Source", "Through"),
    "engine.nodes": ("Heartbeat",),
    "engine.report": (
        "Options",
        "PlanReport",
        "Progress",
        "State",
        "Status",
    ),
    "engine.runner": ("Runner",),
    "expressions.trees": ("NewUuid",),
    "faults": (
        "AlreadyExists",
        "BadSyntax",
        "Cancelled",
        "CheckViolation",
        "CommittedInPart",
        "CommitUnknown",
        "ConstraintViolation",
        "DatabaseFault",
        "Deadlock",
        "Disconnected",
        "DuplicateKey",
        "ExclusionViolation",
        "Fault",
        "ForeignKeyViolation",
        "InvalidData",
        "LockTimeout",
        "NoSuchColumn",
        "NoSuchDatabase",
        "NoSuchTable",
        "NotNullViolation",
        "OutOfResources",
        "PermissionDenied",
        "RaisedByDatabase",
        "ReadOnly",
        "SchemaChanged",
        "SerializationFailure",
        "StatementTimeout",
        "TransactionAborted",
        "TransientFault",
        "Unavailable",
        "classify",
    ),
    "install": ("install",),
    "lens": ("Lens",),
    "opaque": ("Opaque",),
    "operations.attributes": ("ChangeDefault",),
    "operations.comments": ("ChangeComment",),
    "operations.columns": (
        "AddColumn",
        "ChangeType",
        "DropColumn",
        "RenameColumn",
        "TransformColumns",
    ),
    "operations.constraints": (
        "AddCheck",
        "AddExclusion",
        "AddForeignKey",
        "DropCheck",
        "DropExclusion",
        "DropForeignKey",
    ),
    "operations.copying": ("CopyColumn",),
    "operations.enums": ("AddEnumValues",),
    "operations.indexes": (
        "AddUnique",
        "CreateIndex",
        "DropIndex",
        "DropUnique",
    ),
    "operations.keys": (
        "AddPrimaryKey",
        "AddSurrogateKey",
        "DropPrimaryKey",
    ),
    "operations.moves": ("MoveColumns",),
    "operations.nullability": (
        "LoosenNotNull",
        "TightenNotNull",
    ),
    "operations.opaque": ("OpaqueColumns",),
    "operations.parts": ("CopyTable", "MergeTables", "SplitTable"),
    "operations.planning": (
        "Declared",
        "Upgrade",
    ),
    "operations.references": ("AddCompanion", "ReferColumns"),
    "operations.replacing": ("KeyReference", "ReplaceKey"),
    "operations.tables": (
        "CreateTable",
        "DropTable",
        "RenameTable",
    ),
    "operations.widening": ("WidenColumn",),
    "problems": (
        "ContraflowError",
        "Interrupted",
        "Problem",
        "ProblemError",
    ),
    "retry": (
        "Attempt",
        "RetryOptions",
        "TransactionMisused",
        "retry",
        "run_transaction",
    ),
    "writer": ("OpaqueWriter",),
}
"""The same, for when a name is first used: a service that only retries, or pytest that only finds a plugin here, does
not wait until all of the library is loaded."""

_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Some functions bear the name of their module: importing that does not put it in the function's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
