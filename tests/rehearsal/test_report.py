"""The page of a rehearsal, without a browser: it says what the record says, and nothing in a record can break it."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re

import pytest
from rich.console import Console

from contraflow.rehearsal import report
from contraflow.rehearsal.record import Bucket, FaultRecord, Phase, Record
from contraflow.rehearsal.report import charts, facts, palette
from contraflow.rehearsal.report.markup import Html, element
from tests.rehearsal import records

EMPTY = Record(
    started=records.passed().started,
    seconds=0.0,
    seed=0,
    command="contraflow rehearse",
    server="sqlite",
    server_version="",
    old="a",
    new="b",
    verdict="error",
    reason="the server did not start",
)


class Nesting(html.parser.HTMLParser):
    """Sees that every element is closed where it must be, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.data: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.open.append(tag)
        self.tags.append(tag)

    def handle_startendtag(self, tag: str, _attrs: object) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)


def parsed(*shown: Record) -> Nesting:
    nesting = Nesting()
    nesting.feed(report.html(shown))
    nesting.close()
    assert nesting.open == []
    return nesting


def test_the_page_says_what_the_record_says() -> None:
    record = records.failed()
    text = " ".join(" ".join(parsed(record).text).split())
    expected = ["Failed", record.reason, record.command, "postgresql 18.6", "a1f3", "c77e", "51,985"]
    expected += [finding.what for finding in record.findings]
    expected += [fault.title for fault in record.faults] + [lock.statement for lock in record.locks]
    expected += [tried.outcome for tried in record.tries] + [phase.name for phase in record.phases]
    expected += [*record.versions.values(), "812,442", "the sync trigger of users is dropped", "NULL"]
    assert [said for said in expected if said not in text] == []


def test_the_page_holds_the_records() -> None:
    shown = (records.passed(), records.failed())
    [data] = parsed(*shown).data
    assert tuple(Record.from_dict(one) for one in json.loads(data)) == shown


def test_nothing_in_a_record_is_markup() -> None:
    tags = parsed(records.failed()).tags
    evil = dataclasses.replace(
        records.failed(),
        reason="<b>",
        command='"><script>alert(1)</script>',
        old="</title><script>",
        server="<i>",
        versions={f"<u>{name}": "</script>" for name in records.failed().versions},
        options={f"<u>{name}": "<u>" for name in records.failed().options},
        phases=tuple(dataclasses.replace(phase, detail=phase.detail and "</svg>") for phase in records.failed().phases),
        faults=tuple(
            dataclasses.replace(fault, title="<s>", detail=fault.detail and "&lt;") for fault in records.failed().faults
        ),
    )
    assert parsed(evil).tags == tags


def test_a_page_asks_for_nothing_from_elsewhere() -> None:
    page = report.html([records.failed()])
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[^"'\s>]+""", page) == []
    assert "@import" not in page


def test_a_page_about_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        report.html([])


def test_several_servers_have_an_overview() -> None:
    other = dataclasses.replace(records.failed(), server="mariadb", server_version="10.11.18")
    page = report.html([records.passed(), other])
    for anchor in ("postgresql-18.6-7", "mariadb-10.11.18-8"):
        assert f'href="#{anchor}"' in page
        assert f'id="{anchor}"' in page
    assert "<title>Rehearsal of a1f3 → c77e: failed</title>" in page


def test_a_rehearsal_that_never_began_is_shown() -> None:
    text = " ".join(parsed(EMPTY).text)
    assert "Not carried out" in text
    assert "the server did not start" in text


def test_attributes_and_children_are_escaped() -> None:
    made = element(
        "a", "<", Html("<b>"), None, 3, title='"', aria_label="&", open=True, hidden=False, class_=None, x=1.50
    )
    assert made == '<a title="&quot;" aria-label="&amp;" open x="1.5">&lt;<b>3</a>'


def test_a_long_table_is_folded() -> None:
    stalls = tuple(
        dataclasses.replace(records.passed().stalls[0], ms=ms, what=f"request {ms}") for ms in range(100, 112)
    )
    page = report.html([dataclasses.replace(records.passed(), stalls=stalls)])
    shown, folded = page.split("and 2 more")
    assert [ms for ms in range(100, 112) if f"request {ms}<" in shown] == list(range(102, 112))
    assert [ms for ms in range(100, 112) if f"request {ms}<" in folded] == [100, 101]


def test_many_findings_are_folded() -> None:
    base = records.failed()
    many = dataclasses.replace(
        base, findings=tuple(dataclasses.replace(base.findings[0], key=f"id={n}") for n in range(30))
    )
    shown, folded = report.html([many]).split("and 20 more")
    assert [n for n in range(30) if f"id={n}<" in shown] == list(range(10))
    assert shown.count('<details class="finding" open>') == 3
    assert [n for n in range(30) if f"id={n}<" in folded] == list(range(10, 30))


# --- the drawing ---


def test_seconds_are_taken_together() -> None:
    buckets = [
        Bucket(at=0, release="old", requests=10, p50_ms=1, p99_ms=5, worst_ms=9),
        Bucket(at=1, release="old", requests=30, failed=2, p50_ms=3, p99_ms=4, worst_ms=20),
        Bucket(at=1, release="new", requests=99),
        Bucket(at=5, release="old", requests=8, p50_ms=1, p99_ms=1, worst_ms=1),
    ]
    assert charts.columns(buckets, "old", 2) == [
        charts.Column(at=0, seconds=2, per_second=20, failed=2, p50_ms=3, p99_ms=5, worst_ms=20),
        charts.Column(at=4, seconds=2, per_second=4, failed=0, p50_ms=1, p99_ms=1, worst_ms=1),
    ]


@pytest.mark.parametrize("seconds", [0.4, 7, 60, 3_600, 90_000])
@pytest.mark.parametrize("width", [316, 640, 1000])
def test_everything_is_drawn_within_the_drawing(seconds: float, width: int) -> None:
    factor = seconds / 60
    base = records.failed()
    stretched = dataclasses.replace(
        base,
        seconds=seconds,
        phases=tuple(
            dataclasses.replace(phase, began=phase.began * factor, ended=phase.ended * factor) for phase in base.phases
        ),
        faults=tuple(FaultRecord(kind="x", title="x", at=seconds * share / 30) for share in range(31)),
        buckets=tuple(
            Bucket(at=at, release="old", requests=10**6, failed=at % 2, p50_ms=0.01, p99_ms=70_000, worst_ms=70_000)
            for at in range(0, max(1, int(seconds)), max(1, int(seconds / 400)))
        ),
    )
    drawn = charts.timeline(stretched, width)
    height = float(re.findall(r'viewBox="0 0 \d+ (\d+)"', drawn)[0])
    for names, limit in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
        for name in names:
            values = [float(value) for value in re.findall(rf'\b{name}="([-\d.]+)"', drawn)]
            assert values
            assert 0 <= min(values) <= max(values) <= limit, name
    assert drawn.count('class="stripe"') <= width / 3 + 1


# --- colours ---


def luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_computed_as_defined() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_demands(scheme: int) -> None:
    colour = {name: both[scheme] for name, both in palette.PALETTE.items()}
    pairs = [
        (text, ground)
        for text in ("text", "quiet", "old", "new", "fault", "good", "bad", "warn")
        for ground in ("page", "card", "inset")
    ]
    pairs += [(text, f"{text}-inset") for text in ("good", "bad", "warn")]
    low = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}  # AA for text of any size
    shapes = {name: contrast(colour[name], colour["card"]) for name in charts.VERBS}
    assert {name: ratio for name, ratio in shapes.items() if ratio < 3} == {}  # AA for shapes


# --- the terminal ---


def printed(record: Record, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, highlight=False)
    with console.capture() as captured:
        console.print(report.summary([record]))
    return captured.get()


def test_the_summary_ends_with_the_verdict_and_the_way_to_repeat_it() -> None:
    lines = printed(records.passed(), width=200).splitlines()
    assert lines[-2] == f"PASSED in 60.0 s: {records.passed().reason}"
    assert lines[-1] == f"again: {records.passed().command}"


def test_the_summary_shows_what_was_found_and_how_it_came() -> None:
    text = printed(records.failed(), width=250)
    assert "lost users id=17: the new release reads first_name = 'Ada'" in text
    assert "36.1 s" in text
    assert "last_name=NULL  <wrong>" in text
    assert "FAILED in 60.0 s" in text


def test_the_summary_of_many_findings_stays_short() -> None:
    base = records.failed()
    many = dataclasses.replace(base, findings=base.findings * 50)
    text = printed(many)
    assert f"and {150 - 10} more" in text
    assert len(text.splitlines()) < 100


def test_nothing_in_a_record_is_markup_of_the_terminal() -> None:
    odd = dataclasses.replace(records.passed(), reason="[red]x[/red] [/]")
    assert "[red]x[/red] [/]" in printed(odd, width=200)


def test_a_second_belongs_to_the_phase_that_its_middle_lies_in() -> None:
    buckets = [Bucket(at=at, release="old", requests=10 * (at + 1), worst_ms=at) for at in range(4)]
    record = dataclasses.replace(EMPTY, buckets=tuple(buckets))

    def served(began: float, ended: float) -> tuple[float, float] | None:
        found = facts.served(record, Phase(name="x", began=began, ended=ended), "old")
        return None if found is None else (found.per_second, found.worst_ms)

    assert served(0.4, 2.4) == (15, 1)
    assert served(2.6, 2.9) == (30, 2)  # shorter than a second
    assert served(3.5, 9.0) == (40, 3)
    assert served(4.0, 9.0) is None
    assert facts.served(record, Phase(name="x", began=0, ended=4), "new") is None


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0.04, "0.0 ms"),
        (9.94, "9.9 ms"),
        (214.2, "214 ms"),
        (1500, "1.5 s"),
        (130_000, "2:10 min"),
        (3_725_000, "1:02:05 h"),
    ],
)
def test_spans_of_time(ms: float, said: str) -> None:
    assert facts.wait(ms) == said
