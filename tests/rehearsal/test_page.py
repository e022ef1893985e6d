"""The page of a rehearsal in a real browser: on a phone, on a desk, in the dark and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from contraflow.rehearsal import report
from tests.rehearsal import records
from tests.rehearsal.browser import Browser, Page

Scheme = Literal["light", "dark"]

SIZES: list[tuple[int, Scheme]] = [
    (360, "light"),
    (360, "dark"),
    (700, "light"),
    (800, "light"),
    (1280, "light"),
    (1280, "dark"),
]

OVERFLOWING = """
[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !(e instanceof SVGElement)
    && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
  .map(e => e.outerHTML.slice(0, 120))
"""

# The words of a drawing that stand out of it, or over another: each drawing is its own text's only frame.
DRAWN_BADLY = """
[...document.querySelectorAll('svg')].filter(e => e.checkVisibility()).flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].filter(e => e.checkVisibility({visibilityProperty: true}))
    .map(e => [e.textContent, e.getBoundingClientRect()]);
  const out = texts.filter(([_, b]) => b.left < frame.left - 1 || b.right > frame.right + 1
    || b.top < frame.top - 1 || b.bottom > frame.bottom + 1).map(([t]) => 'outside: ' + t);
  const over = texts.flatMap(([t, a], i) => texts.slice(i + 1)
    .filter(([_, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
    .map(([u]) => t + ' over ' + u));
  return [...out, ...over];
})
"""

SMALL = """
[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && [...e.childNodes].some(n =>
    n.nodeType == 3 && n.textContent.trim()) && !['SCRIPT', 'STYLE', 'TITLE', 'title'].includes(e.tagName))
  .map(e => {
    // A drawing is scaled to its place, and its text with it.
    const svg = e.closest('svg');
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return [parseFloat(getComputedStyle(e).fontSize) * scale, e.textContent.slice(0, 40)];
  }).filter(([size]) => size < 9.5)
"""

# Each text with its colour and what is behind it: the nearest ancestor that has a background.
COLOURS = """
[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && [...e.childNodes].some(n =>
    n.nodeType == 3 && n.textContent.trim()) && !['SCRIPT', 'STYLE', 'TITLE', 'title'].includes(e.tagName))
  .map(e => {
    const style = getComputedStyle(e);
    let ground = e;
    while (ground && (ground instanceof SVGElement || getComputedStyle(ground).backgroundColor == 'rgba(0, 0, 0, 0)'))
      ground = ground.parentElement;
    return [e instanceof SVGElement ? style.fill : style.color, getComputedStyle(ground).backgroundColor,
            e.textContent.slice(0, 40)];
  })
"""


TOLD = """
[...document.querySelectorAll('svg .told')].filter(e => e.checkVisibility({visibilityProperty: true}))
  .map(e => e.textContent)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}-{size[1]}")
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    width, scheme = request.param
    with browser.page(report.html([records.failed(), records.passed()]), width=width, scheme=scheme) as page:
        yield page


def luminance(colour: str) -> float:
    """Of ``rgb(1, 2, 3)``, as WCAG 2.2 defines it."""
    assert colour.startswith("rgb("), colour
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_page_is_sound(page: Page) -> None:
    """One test, since a page is loaded once for all of it."""
    widths: list[int] = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] == widths[1], page.evaluate(OVERFLOWING)
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(DRAWN_BADLY) == []
    assert page.evaluate(SMALL) == []
    texts: list[list[str]] = page.evaluate(COLOURS)
    assert len(texts) > 200
    assert [text for text in texts if contrast(text[0], text[1]) < 4.5] == []
    assert page.evaluate("[...document.querySelectorAll('svg')].filter(e => e.checkVisibility()).length") == 2
    assert page.complaints() == []
    assert page.requests() == []


def test_a_page_that_is_not_sound_is_seen(browser: Browser) -> None:
    """The checks above can fail."""
    broken = """<body style="margin:0;background:#fff"><div style="width:2000px">wide</div>
        <p style="color:#999">pale</p><p style="font-size:8px">small</p><p style="width:9px;overflow:hidden">clipped</p>
        <svg viewBox="0 0 99 99" width="99"><text x="-9" y="20">out</text><text y="50">over</text><text y="52">it</text>
        </svg><img src="http://127.0.0.1:9/x.png"><script>nothing.there</script>"""
    with browser.page(broken, width=360) as page:
        assert page.evaluate("document.documentElement.scrollWidth") > 360
        assert len(page.evaluate(OVERFLOWING)) >= 1
        assert page.evaluate(DRAWN_BADLY) == ["outside: out", "over over it"]
        assert [text for _, text in page.evaluate(SMALL)] == ["small"]
        pale = [text for colour, ground, text in page.evaluate(COLOURS) if contrast(colour, ground) < 4.5]
        assert pale == ["pale"]
        assert "nothing is not defined" in " ".join(page.complaints())
        assert page.requests() == ["http://127.0.0.1:9/x.png"]


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_pointed_at_tells_its_numbers(browser: Browser, width: int) -> None:
    with browser.page(report.html([records.passed()]), width=width) as page:
        assert page.evaluate(TOLD) == []
        page.hover(".stripe", 10)
        said: Any = page.evaluate(TOLD)
        assert said
        assert "old: " in said[0]
        assert page.evaluate(DRAWN_BADLY) == []


def test_the_page_is_printed_whole(browser: Browser) -> None:
    """What is folded on the screen is not on paper, and no sheet is cut at its right."""
    page_with_many = report.html([records.failed()]).replace(
        '<details class="finding" open>', '<details class="finding">'
    )
    with browser.page(page_with_many, width=650, scheme="dark", media="print") as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 650
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(DRAWN_BADLY) == []
        history = "document.querySelector('.history').getBoundingClientRect().height"
        assert page.evaluate(history) > 100
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
        )
        made = page.pdf()
    assert made.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", made)) <= 6
