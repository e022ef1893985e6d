"""Which faults strike a rehearsal, and when: values, planned from a seed.

A fault in a phase that a runner works in strikes before (or inside) a numbered statement of its; in a phase without
one it strikes after a share of the phase's time. The same seed plans the same faults, and each kind draws from a
source of its own: leaving one out does not move the others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from contraflow.problems import Problem, ProblemError

__all__ = ["KINDS", "VERBS", "Fault", "Kind", "Needs", "Phase", "asked", "left_out", "parse", "plan"]

Phase = Literal["old", "expand", "migrate", "verify", "both", "contract", "new"]
"""The phases of a rehearsal: the verbs, and the times in which the old release, both, or the new one only work."""

VERBS: tuple[Phase, ...] = ("expand", "migrate", "verify", "contract")
_WORKING: tuple[Phase, ...] = ("expand", "migrate", "contract", "both")
"""Where there are locks to wait for, and two releases to disturb."""

Needs = Literal["nothing", "network", "process", "locks", "cluster"]
"""What a kind needs of the server. ``network``: connections that can be hurt on their way; ``process``: a server of
the rehearsal's own; ``locks``: locks on rows; ``cluster``: several nodes.
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault.

    :ivar name: the word for it; `title` the same for a person.
    :ivar phases: where it may strike.
    :ivar seconds: how long it lasts, at least and at most; how far a clock is set.
    :ivar last: the last statement that it may strike at; 1 for what belongs to the beginning of a phase.
    :ivar inside: whether it may strike while a statement is carried out, too.
    :ivar every: strikes in each of its phases, not in one of them.
    :ivar explains: the codes of the problems with which it may end a runner, which is then started again.
    """

    name: str
    title: str
    phases: tuple[Phase, ...] = VERBS
    needs: Needs = "nothing"
    seconds: tuple[float, float] = (0.0, 0.0)
    last: int = 100
    inside: bool = False
    every: bool = False
    explains: frozenset[str] = frozenset()


_GONE = frozenset({"CF001", "CF009", "CF201"})
"""How a runner ends whose connection, or whose server, is gone: it may have lost its lock by then."""
_NO_LOCK = frozenset({"CF006"})

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="runner-killed", title="the runner is killed", inside=True, every=True),
        Kind(
            name="runner-cut",
            title="the runner's connection is cut",
            needs="network",
            inside=True,
            explains=_GONE,
        ),
        Kind(name="second-runner", title="a second runner", explains=frozenset({"CF001"})),
        Kind(
            name="rolled-back",
            title="rolled back half-way, and forward again",
            phases=("migrate", "verify"),
        ),
        Kind(name="release-taken-back", title="the new release is taken back, and rolled out again", phases=("both",)),
        Kind(
            name="clock-step",
            title="the runner's clock is set",
            seconds=(-4000.0, 4000.0),
            explains=_NO_LOCK | {"CF001"},
        ),
        Kind(
            name="disk-full",
            title="the disk is full for the runner",
            phases=("expand", "migrate", "contract"),
            last=12,
            explains=frozenset({"CF001", "CF009"}),  # the first where it could not renew its lease
        ),
        Kind(name="worker-cut", title="the workers' connections are cut", phases=_WORKING, needs="network"),
        Kind(
            name="commit-lost",
            title="answers to COMMIT are lost",
            phases=_WORKING,
            needs="network",
            seconds=(0.3, 1.0),
        ),
        Kind(
            name="serialization-failed",
            title="commits lose a conflict",
            phases=_WORKING,
            needs="network",
            seconds=(0.3, 1.0),
        ),
        Kind(
            name="worker-delayed",
            title="the workers' messages are delayed",
            phases=_WORKING,
            needs="network",
            seconds=(0.5, 1.5),
            explains=_NO_LOCK,
        ),
        Kind(
            name="black-hole",
            title="the workers' connections go silent",
            phases=_WORKING,
            needs="network",
            seconds=(0.5, 2.0),
            explains=_NO_LOCK,
        ),
        Kind(
            name="long-reader",
            title="a long reading transaction",
            phases=("expand", "migrate", "contract"),
            seconds=(0.5, 2.0),
            last=1,
            explains=_NO_LOCK,
        ),
        Kind(
            name="idle-in-transaction",
            title="a writing transaction left open",
            phases=("expand", "migrate", "contract"),
            seconds=(0.5, 1.5),
            last=1,
            explains=_NO_LOCK,
        ),
        Kind(
            name="lock-storm",
            title="a storm of table locks",
            phases=_WORKING,
            seconds=(0.5, 1.5),
            explains=_NO_LOCK,
        ),
        Kind(
            name="deadlocks",
            title="deadlocks on rows",
            phases=_WORKING,
            needs="locks",
            seconds=(1.0, 2.0),
            explains=_NO_LOCK,
        ),
        Kind(
            name="out-of-connections",
            title="the server is out of connections",
            phases=_WORKING,
            needs="process",
            seconds=(0.3, 1.0),
            explains=_GONE,
        ),
        Kind(
            name="server-restarted",
            title="the server is restarted",
            phases=(*VERBS, "both"),
            needs="process",
            explains=_GONE,
        ),
        Kind(
            name="server-killed",
            title="the server is killed",
            phases=(*VERBS, "both"),
            needs="process",
            seconds=(0.0, 0.5),
            inside=True,
            explains=_GONE,
        ),
        Kind(
            name="node-killed",
            title="a node of the cluster is killed",
            phases=_WORKING,
            needs="cluster",
            seconds=(0.5, 2.0),
            explains=_GONE | _NO_LOCK,
        ),
        Kind(
            name="node-partitioned",
            title="a node of the cluster is cut off",
            phases=_WORKING,
            needs="cluster",
            seconds=(3.0, 5.0),
            explains=_GONE | _NO_LOCK,
        ),
        Kind(
            name="flow-control",
            title="a node of the cluster makes the others wait",
            phases=_WORKING,
            needs="cluster",
            seconds=(0.5, 1.5),
            explains=_NO_LOCK,
        ),
    )
}
"""Every kind by its name."""

_TEXT = re.compile(
    r"(?P<kind>[a-z-]+)@(?P<phase>[a-z]+):(?P<place>\d+(?P<share>\.\d+)?)(?P<inside>~)?"
    r"(?:(?P<seconds>[+-]\d+(?:\.\d+)?)s)?"
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault that is to strike.

    ``str(fault)`` is its short form, which `parse` reads: ``server-killed@migrate:7~+0.25s`` is a server killed while
    statement 7 of migrate is carried out, and gone for a quarter of a second; ``lock-storm@both:0.4+1.5s`` begins
    after two fifths of the time in which both releases work.

    :ivar kind: one of `KINDS`.
    :ivar statement: in a phase with a runner, before which of its statements (see `RunnerProcess`), counted from 1 in
        the start that it strikes; at the end of the phase, if that has fewer. For ``disk-full`` on SQLite, how
        many pages the file may grow. None in a phase without a runner.
    :ivar share: in a phase without a runner, after which share of its time; 0 to 1. Else None.
    :ivar inside: while that statement is carried out.
    :ivar seconds: how long it lasts; 0 for what lasts no time. For ``clock-step``, by how much.
    """

    kind: str
    phase: Phase
    statement: int | None = None
    share: float | None = None
    inside: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known are {', '.join(KINDS)}")
        if self.phase not in get_args(Phase):
            raise ValueError(f"unknown phase {self.phase!r}; known are {', '.join(get_args(Phase))}")
        if (self.statement is None) == (self.phase in VERBS) or (self.share is None) != (self.phase in VERBS):
            raise ValueError(f"{self.kind}: a statement in {', '.join(VERBS)}, a share of the time elsewhere")
        if self.phase not in KINDS[self.kind].phases:
            raise ValueError(f"{self.kind} strikes in {', '.join(KINDS[self.kind].phases)} only, not in {self.phase}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"{self.kind}: a share lies between 0 and 1, not at {self.share}")

    def __str__(self) -> str:
        place = self.statement if self.share is None else float(self.share)
        text = f"{self.kind}@{self.phase}:{place}{'~' if self.inside else ''}"
        return f"{text}{self.seconds:+}s" if self.seconds else text

    @property
    def title(self) -> str:
        """What it is, for a person."""
        return KINDS[self.kind].title


def parse(text: str) -> Fault:
    """The fault whose short form ``text`` is.

    :raises ValueError: if it is none.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no fault; one is written like lock-storm@both:0.4+1.5s or runner-killed@expand:7"
        )
    shared = match["share"] is not None
    return Fault(
        kind=match["kind"],
        phase=match["phase"],  # type: ignore[arg-type] # looked at by Fault
        statement=None if shared else int(match["place"]),
        share=float(match["place"]) if shared else None,
        inside=match["inside"] is not None,
        seconds=float(match["seconds"] or 0),
    )


def left_out(kinds: Iterable[str], *, server: str, ours: bool = True) -> dict[str, str]:
    """Those of ``kinds`` that cannot strike on a ``server`` of that kind, each with the reason.

    :param ours: whether the rehearsal has started the server for itself.
    """
    reasons: dict[Needs, str] = {}
    if server == "sqlite":
        reasons["network"] = "SQLite has no connections that could be hurt on their way"
        reasons["process"] = "SQLite has no server"
        reasons["locks"] = "SQLite locks the whole file, so no two transactions can wait for each other"
    if server != "galera":
        reasons["cluster"] = f"{server} is not a cluster"
    elif ours:
        reasons["process"] = "a cluster is hurt one node at a time: node-killed is the fault to choose"
    if not ours and server != "sqlite":
        reasons["process"] = "the server was not started by the rehearsal, and others may be using it"
    return {name: reasons[KINDS[name].needs] for name in kinds if KINDS[name].needs in reasons}


def plan(
    seed: int, kinds: Collection[str] = tuple(KINDS), *, server: str, ours: bool = True, each: int = 1
) -> tuple[Fault, ...]:
    """The faults that ``seed`` chooses: of each of ``kinds`` that the server can have, ``each`` (of those that strike
    in every phase, as many in each).

    :param kinds: names out of `KINDS`; the order does not matter.
    :param server: the kind of server, see `contraflow.rehearsal.servers.KINDS`.
    :param ours: as for `left_out`.
    :raises ValueError: if a name is not known.
    """
    if unknown := [name for name in kinds if name not in KINDS]:
        raise ValueError(f"unknown fault {unknown[0]!r}; known are {', '.join(KINDS)}")
    impossible = left_out(kinds, server=server, ours=ours)
    found: list[Fault] = []
    for name, kind in KINDS.items():
        if name not in kinds or name in impossible:
            continue
        rng = random.Random(f"{seed}/faults/{name}")  # noqa: S311 - repeatable on purpose
        for _ in range(each):
            phases: Sequence[Phase] = kind.phases if kind.every else [rng.choice(kind.phases)]
            found.extend(_draw(kind, phase, rng) for phase in phases)
    return tuple(found)


def asked(text: str, seed: int, *, server: str, ours: bool = True) -> tuple[Fault, ...]:
    """The faults that a person asks for in one text, as ``--faults`` takes it.

    ``all``, ``none``, or words separated by commas: names of kinds, which ``seed`` plans, and exact faults, which have
    an ``@``. Of ``all``, a kind that the server cannot have is left out.

    :raises ValueError: if a name is not known, or an exact one says nothing.
    :raises ProblemError: CF209 for each one asked for by name that cannot strike there.
    """
    words = [word.strip() for word in text.split(",") if word.strip() not in ("", "none")]
    exact = [word for word in words if "@" in word]
    named = {word for word in words if word not in exact} - {"all"}
    faults = [parse(word) for word in exact]
    planned = plan(seed, set(KINDS) | named if "all" in words else named, server=server, ours=ours)
    asked_for = [*named, *(fault.kind for fault in faults)]
    ProblemError.raise_any(
        Problem(
            code="CF209",
            what=f"{name} cannot strike on {server}.",
            why=f"{reason}.",
            instead="leave it out, or choose another server; --faults all takes what the server can have.",
        )
        for name, reason in left_out(asked_for, server=server, ours=ours).items()
    )
    return (*planned, *faults)


def _draw(kind: Kind, phase: Phase, rng: random.Random) -> Fault:
    inside = rng.random() < 0.5
    # Beginnings are short of statements and full of meaning: as many strike at the first ten as at the next ninety.
    statement = max(1, round(kind.last ** rng.random()))
    share = round(rng.uniform(0.1, 0.8), 3)
    seconds = round(rng.uniform(*kind.seconds), 3)
    if phase in VERBS:
        return Fault(kind=kind.name, phase=phase, statement=statement, inside=kind.inside and inside, seconds=seconds)
    return Fault(kind=kind.name, phase=phase, share=share, seconds=seconds)
