"""A rehearsal as one page of HTML that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from contraflow.rehearsal.record import Event, Finding, Plain, Record, Verdict
from contraflow.rehearsal.report import facts, palette
from contraflow.rehearsal.report.charts import VERBS, timeline
from contraflow.rehearsal.report.facts import RELEASES, clock, wait
from contraflow.rehearsal.report.markup import Child, Html, element, join

__all__ = ["html"]

_WIDTHS = {"narrow": 316, "medium": 640, "wide": 1000}
"""The widths that the timeline is drawn for; the style sheet shows one of them."""

_SIGNS: Mapping[Verdict, str] = {"passed": "✓", "failed": "✗", "error": "!"}
_KINDS: Mapping[Verdict, str] = {"passed": "good", "failed": "bad", "error": "warn"}
_NOTHING = element("span", "–", class_="nothing")
_OPEN, _SHOWN = 3, 10
"""So many findings are shown with their histories, and so many at all; the others are folded."""
_ROWS = 10
"""So many rows of a long table are shown. Paper has only what is shown so."""


def html(records: Sequence[Record]) -> str:
    """A whole page about one rehearsal, or about one on each of several servers.

    It holds the records themselves, too: ``<script type="application/json">``, for programs to read.

    :raises ValueError: if there is no record.
    """
    if not records:
        raise ValueError("a report needs at least one record")
    title = f"Rehearsal of {records[0].old} → {records[0].new}: {_overall(records)}"
    style = palette.stylesheet() + (Path(__file__).with_name("page.css")).read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content="contraflow"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", Html(style)),
    )
    body = element(
        "body",
        element(
            "header",
            element("span", "contraflow", class_="mark"),
            " rehearsal",
            class_="top",
        ),
        element("main", _overview(records) if len(records) > 1 else None, *map(_rehearsal, records)),
        element(
            "footer",
            "A rehearsal runs a whole upgrade on scratch servers while nodes of both releases work."
            " Times on this page are seconds since it began.",
        ),
        element("script", _data(records), type="application/json", id="records"),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _data(records: Sequence[Record]) -> Html:
    """The records as JSON in which nothing can end the script element."""
    text = json.dumps([record.as_dict() for record in records], ensure_ascii=True, separators=(",", ":"))
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _overall(records: Sequence[Record]) -> str:
    verdicts = {record.verdict for record in records}
    worst: Verdict = "failed" if "failed" in verdicts else "error" if "error" in verdicts else "passed"
    return facts.TITLES[worst].lower()


def _overview(records: Sequence[Record]) -> Html:
    rows = [
        (
            element("a", facts.server(record), href=f"#{_anchor(record)}"),
            _pill(record.verdict),
            f"{facts.total_requests(record):,}",
            f"{facts.total_failed(record):,}",
            wait(facts.longest_wait(record)),
            str(len(record.findings)),
        )
        for record in records
    ]
    headings = ("server", "verdict", "requests", "failed", "worst wait", "found wrong")
    return _section("", _table(headings, rows, numbers=(2, 3, 4, 5)))


def _anchor(record: Record) -> str:
    return f"{record.server}-{record.server_version}-{record.seed}"


def _rehearsal(record: Record) -> Html:
    return element(
        "article",
        _verdict(record),
        _findings(record),
        _timeline(record),
        _phases(record),
        _events(record),
        _conditions(record),
        id=_anchor(record),
    )


# --- the verdict ---


def _verdict(record: Record) -> Html:
    started = record.started.strftime("%d %B %Y, %H:%M %Z").lstrip("0")
    said = (
        element("strong", facts.server(record)),
        element("span", "upgrade ", element("code", record.old), " → ", element("code", record.new)),
        started,
        f"took {clock(record.seconds)}",
        element("span", "seed ", element("code", record.seed)),
    )
    return element(
        "section",
        element(
            "p", element("span", _SIGNS[record.verdict], class_="sign"), facts.TITLES[record.verdict], class_="word"
        ),
        element("h1", record.reason),
        element("p", *(element("span", part) for part in said), class_="said"),
        _tiles(record),
        class_=f"verdict {_KINDS[record.verdict]}",
    )


def _tiles(record: Record) -> Html:
    failed = facts.total_failed(record)
    lost = sum(finding.kind == "lost" for finding in record.findings)
    other = len(record.findings) - lost
    tiles: list[tuple[str, str, str]] = [
        (f"{facts.total_requests(record):,}", "requests answered", ""),
        (f"{failed:,}", "requests failed", "bad" if failed else "good"),
        (f"{lost:,}", "acknowledged writes lost", "bad" if lost else "good"),
        (f"{other:,}", "other things found wrong", "bad" if other else "good"),
    ]
    for release in RELEASES:
        if facts.total_requests(record, release):
            longest = wait(facts.longest_wait(record, release))
            tiles.append((longest, f"longest wait, {release} release", release))
    return element(
        "ul",
        *(
            element("li", element("b", number), element("span", label), class_=kind or None)
            for number, label, kind in tiles
        ),
        class_="tiles",
    )


def _pill(verdict: Verdict) -> Html:
    return element("span", f"{_SIGNS[verdict]} {facts.TITLES[verdict]}", class_=f"pill {_KINDS[verdict]}")


# --- what was found ---


def _findings(record: Record) -> Html | None:
    if not record.findings:
        return None
    shown = [_finding(finding, number < _OPEN) for number, finding in enumerate(record.findings[:_SHOWN])]
    rest = [_finding(finding, False) for finding in record.findings[_SHOWN:]]
    return _section("What was found wrong", *shown, _more(len(rest), *rest) if rest else None)


def _finding(finding: Finding, unfolded: bool) -> Html:
    where = " ".join(part for part in (finding.table, finding.key) if part)
    history = element("ol", *map(_event, finding.history), class_="history") if finding.history else None
    reproduce = (
        join((element("h4", "A script that shows it"), element("pre", element("code", finding.reproduce), tabindex=0)))
        if finding.reproduce
        else None
    )
    head = (
        element("span", finding.kind, class_="pill bad"),
        element("code", where) if where else None,
        element("span", finding.what, class_="what"),
    )
    if history is None and reproduce is None:
        return element("div", element("div", *head, class_="summary"), class_="finding")
    return element("details", element("summary", *head), history, reproduce, class_="finding", open=unfolded)


def _event(event: Event) -> Html:
    who = join(
        (
            element("span", event.release or "all", class_=f"release {event.release or 'none'}"),
            element("span", event.worker, class_="worker") if event.worker else None,
        )
    )
    values = [
        element("span", element("span", f"{name} ", class_="name"), _value(value), class_="value" + _kind_of(value))
        for name, value in event.values.items()
    ]
    outcome = None
    if event.outcome != "ok":
        outcome = element("span", event.outcome, class_="outcome warn" if event.outcome == "unknown" else "outcome bad")
    return element(
        "li",
        element("time", clock(event.at)),
        element(
            "div",
            element("div", who, element("span", event.action, class_="action"), outcome, class_="did"),
            element("div", *values, class_="values") if values else None,
        ),
        class_=event.release or "none",
    )


def _value(value: Plain) -> str:
    return "NULL" if value is None else json.dumps(value, ensure_ascii=False)


def _kind_of(value: Plain) -> str:
    return " null" if value is None else ""


# --- what happened ---


def _timeline(record: Record) -> Html:
    legend = [element("span", f"{release} release", class_=f"key {release}") for release in RELEASES]
    if facts.total_failed(record):
        legend.append(element("span", "failed requests", class_="key bad"))
    drawings = [
        element("figure", timeline(record, width), class_=f"timeline {name}") for name, width in _WIDTHS.items()
    ]
    faults = None
    if record.faults:
        faults = element(
            "ol",
            *(
                element(
                    "li",
                    element("b", fault.title),
                    element(
                        "span", f" at {clock(fault.at)}" + (f", until {clock(fault.until)}" if fault.until else "")
                    ),
                    element("span", f" – {fault.detail}", class_="quiet") if fault.detail else None,
                )
                for fault in facts.in_order(record.faults)
            ),
            class_="faults",
        )
    return _section("What happened", element("p", *legend, class_="legend"), *drawings, faults)


def _phases(record: Record) -> Html | None:
    if not record.phases:
        return None
    rows = []
    for phase in record.phases:
        cells: list[Child] = [
            element("span", phase.name, class_=f"phase-name {phase.name if phase.name in VERBS else 'idle'}"),
            clock(phase.began),
            clock(phase.ended - phase.began),
        ]
        for release in RELEASES:
            found = facts.served(record, phase, release)
            cells += [f"{found.per_second:,.0f}/s", wait(found.worst_ms)] if found else [_NOTHING, _NOTHING]
        rows.append((*cells, phase.detail))
    headings = ["phase", "began", "took"]
    for release in RELEASES:
        headings += [f"{release} rate", f"{release} worst"]
    note = "Rates, and the longest wait of a request, are those of the whole seconds nearest to the phase."
    return _section("Phase by phase", _table((*headings, ""), rows, numbers=(1, 2, 3, 4, 5, 6)), _note(note))


def _events(record: Record) -> Html | None:
    parts: list[Child] = []
    if record.stalls:
        stalls = [
            (clock(stall.at), _release(stall.release), wait(stall.ms), stall.phase, stall.what)
            for stall in sorted(record.stalls, key=lambda stall: -stall.ms)
        ]
        parts.append(
            _titled(
                "Longest waits of a request",
                _long_table(("at", "release", "waited", "phase", "request"), stalls, numbers=(0, 2)),
            )
        )
    if record.locks:
        locks = [
            (
                clock(lock.at),
                wait(lock.ms),
                "got it" if lock.granted else "stepped back",
                element("code", lock.statement),
            )
            for lock in record.locks
        ]
        parts.append(
            _titled(
                "Locks that the upgrade waited for",
                _long_table(("at", "waited", "then", "statement"), locks, numbers=(0, 1)),
            )
        )
    if record.tries:
        tries = [(clock(tried.at), tried.verb, clock(tried.seconds), tried.outcome) for tried in record.tries]
        parts.append(
            _titled("Starts of the upgrade", _long_table(("at", "verb", "ran", "outcome"), tries, numbers=(0, 2)))
        )
    return _section("Waits and starts", *parts) if parts else None


def _release(release: str) -> Html:
    return element("span", release, class_=f"release {release}")


# --- under which conditions ---


def _conditions(record: Record) -> Html:
    parts = [
        _pairs("Counted", {name: f"{number:,}" for name, number in record.counts.items()}),
        _pairs("Versions", {record.server: record.server_version, **record.versions}),
        _pairs("Options", {name: _option(value) for name, value in record.options.items()}),
    ]
    return _section(
        "The same again",
        element("pre", element("code", record.command), class_="command", tabindex=0),
        element("div", *parts, class_="columns"),
    )


def _option(value: Plain) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _pairs(title: str, pairs: Mapping[str, str]) -> Html | None:
    if not pairs:
        return None
    rows = (element("div", element("dt", name), element("dd", value)) for name, value in pairs.items())
    return element("div", element("h3", title), element("dl", *rows))


# --- parts of a page ---


def _section(title: str, *children: Child) -> Html:
    return element("section", element("h2", title) if title else None, *children, class_="card")


def _titled(title: str, child: Html) -> Html:
    return join((element("h3", title), child))


def _note(text: str) -> Html:
    return element("p", text, class_="note")


def _long_table(headings: Sequence[str], rows: Sequence[Sequence[Child]], *, numbers: Sequence[int]) -> Html:
    """A table whose rows after the first `_ROWS` are folded."""
    shown = _table(headings, rows[:_ROWS], numbers=numbers)
    rest = rows[_ROWS:]
    if not rest:
        return shown
    return join((shown, _more(len(rest), _table(headings, rest, numbers=numbers))))


def _more(number: int, *children: Child) -> Html:
    return element("details", element("summary", f"and {number:,} more"), *children, class_="more")


def _table(headings: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: Sequence[int] = ()) -> Html:
    """A table that becomes a list of cards on a narrow screen: each cell knows its heading."""

    def kind(column: int) -> str | None:
        return "number" if column in numbers else None

    return element(
        "table",
        element(
            "thead",
            element("tr", *(element("th", text, class_=kind(n), scope="col") for n, text in enumerate(headings))),
        ),
        element(
            "tbody",
            *(
                element(
                    "tr",
                    *(
                        element(
                            "td", element("div", cell) if cell else None, class_=kind(n), data_label=headings[n] or None
                        )
                        for n, cell in enumerate(row)
                    ),
                )
                for row in rows
            ),
        ),
    )
