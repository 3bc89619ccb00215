"""Numbers in the book's prose: they come from a run's records, never from a keyboard.

A markdown cell of a stage and a hand-written page quote the record `answer_quality` that a stage
kept with `run.write_record` like this::

    With reasoning {{ answer_quality.with_reasoning | percent }} of the answers are right.

On a stage's page the records are those of its own run, on a hand-written page those of the book's
main run; `runs["smollm2-135m"].records` reaches any other. The text between the braces is Jinja;
`{% for %}` works too. Asking for what no record holds is an error that names the page. What is
quoted shows as the text that it is (`foreign_text.py`); only our own tables are Markdown, and say
so by being `Markup`. A quotation alone between backticks is code, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import jinja2
from markupsafe import Markup

from r2a_utils.publishing.foreign_text import code, inert, one_line
from r2a_utils.stats import few

_CODE = re.compile(r"(?<![`}])`\{\{((?:(?!\}\}).)*)\}\}`(?!`)", re.DOTALL)


class ProseError(ValueError):
    """A page that quotes what no record holds; the message names the page."""


def render(
    text: str,
    page: str,
    run: Mapping[str, Any],
    runs: Mapping[str, Any],
    others: Mapping[str, Any] | None = None,
) -> str:
    """`text` with its quotations filled in; `page` names it in errors.

    `run` is the summary (id, title, pages, records, stages, machines) of the run that the page
    belongs to and `runs` holds those of all runs by id; `others` are further names that the page
    may quote. Raises ProseError.
    """
    try:
        template = _environment().from_string(_CODE.sub(r"{{ (\1) | code }}", text))
        return template.render({**run["records"], "run": run, "runs": runs, **(others or {})})
    except (jinja2.TemplateError, TypeError) as error:  # a filter given None is a TypeError
        line = getattr(error, "lineno", None)
        where = f"{page}, line {line}" if line else page
        raise ProseError(
            f"{where}: {error}; run {run['id']!r} has the records "
            f"{', '.join(sorted(run['records'])) or '(none)'}"
        ) from error


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as a percentage: 0.934 is '93 %'."""
    return f"{100 * share:.{digits}f} %"


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed count of digits, a true minus sign and no minus before a zero."""
    return f"{value:z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """A p-value as it is written in prose: 'p = 0.03', or a bound below 0.001."""
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def counted(n: int, one: str, many: str = "") -> str:
    """A count with its noun: '1 problem', '3 problems'; `many` where the plural is no added s."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def _environment() -> jinja2.Environment:
    # {# would be Jinja's comment and is MyST's attribute syntax
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        comment_start_string="{##",
        comment_end_string="##}",
        autoescape=False,
        finalize=_shown,
    )
    numbers = {"percent": percent, "number": number, "p_value": p_value, "counted": counted}
    numbers["few"] = few
    environment.filters |= {name: _ours(write) for name, write in numbers.items()}
    environment.filters |= {"code": code, "one_line": one_line}
    return environment


def _shown(value: Any) -> Any:
    """What a quotation becomes: the one place where foreign text enters a page's Markdown."""
    plain = isinstance(value, Markup | int | float | jinja2.Undefined)
    return value if plain else inert(str(value))


def _ours(write: Callable[..., str]) -> Callable[..., Markup]:
    @wraps(write)
    def written(*arguments, **settings) -> Markup:
        return Markup(write(*arguments, **settings))

    return written
