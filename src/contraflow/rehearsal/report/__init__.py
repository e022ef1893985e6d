"""What a person sees of a rehearsal: a page for a browser and a summary for a terminal.

Both are pure functions of `contraflow.rehearsal.record.Record`.

    >>> from contraflow.rehearsal import report
    >>> Path("report.html").write_text(report.html([record]), encoding="utf-8")
"""

from contraflow.rehearsal.report.page import html
from contraflow.rehearsal.report.terminal import summary

__all__ = ["html", "summary"]
