"""The language of lenses: a closed part of SQLAlchemy Core with one meaning on every server.

A lens function receives a row and returns Core expressions. What may stand in them is closed on purpose: column
references, literals, ``+ - *``, comparisons, ``and_``/``or_``/``not_``, ``case``, ``func.coalesce``, ``in_`` over
literals, and the functions named here. Each function is declared with its Python meaning; each dialect
says how its server computes the same. :func:`evaluate` is that Python meaning applied to a whole expression.

Everything else (``cast``, ``text()``, subqueries, aggregates, ``func.anything``) is refused when the lens is
declared, with problem ``CF103``, because its meaning differs between servers.

Meanings that all servers share, and that Core alone would not give:

* text is compared byte for byte (code point by code point), never by collation;
* ``NULL`` in an argument gives ``NULL``, except where a function says otherwise;
* ``lower`` and ``upper`` change the letters A-Z only (SQLite knows no others);
* time is UTC without a zone.
"""

from __future__ import annotations

from contraflow.expressions.evaluation import evaluate
from contraflow.expressions.functions import (
    FUNCTIONS,
    UTCNOW,
    after,
    before,
    concat,
    contains,
    decimal_shift,
    div,
    epoch_us,
    from_epoch_us,
    json_integer,
    json_put,
    json_text,
    length,
    lower,
    ltrim,
    mod,
    recode,
    replace,
    rtrim,
    starts_with,
    substr,
    to_integer,
    to_minor_units,
    to_text,
    trim,
    upper,
    utcnow,
)
from contraflow.expressions.trees import (
    Expression,
    Function,
    LensCall,
    Ref,
    children,
    describe,
    inside,
    is_deterministic,
    pairwise,
    references,
    validate,
    walk,
)

__all__ = [
    "FUNCTIONS",
    "UTCNOW",
    "Expression",
    "Function",
    "LensCall",
    "Ref",
    "after",
    "before",
    "children",
    "concat",
    "contains",
    "decimal_shift",
    "describe",
    "div",
    "epoch_us",
    "evaluate",
    "from_epoch_us",
    "inside",
    "is_deterministic",
    "json_integer",
    "json_put",
    "json_text",
    "length",
    "lower",
    "ltrim",
    "mod",
    "pairwise",
    "recode",
    "references",
    "replace",
    "rtrim",
    "starts_with",
    "substr",
    "to_integer",
    "to_minor_units",
    "to_text",
    "trim",
    "upper",
    "utcnow",
    "validate",
    "walk",
]
