"""The parameters of a stage: what its notebook declares, and which values it may be given.

A stage declares its parameters in the one cell tagged `parameters`, as plain assignments of literal
values that a reader of the page sees::

    n_problems = 200
    temperature: float = 0.0
    layers: list[int] | None = None      # an annotation says what a None may become

This file reads that cell without running it, checks names and types before anything runs, and
writes the cell anew with the values of one run. It knows nothing of Papermill or of run folders.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from r2a_utils.runs.limits import UNLIMITED, Limits, check_finite
from r2a_utils.runs.plain_yaml import read_yaml

KINDS = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "entries ({name: value})",
    "None": "None",
}
# A run's parameters are shown on its page and kept in its manifest, so a secret must never be one.
SECRET_WORDS = {"token", "key", "apikey", "secret", "password", "passwd", "credential", "auth"}
SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(hf_|sk-|gh[pousr]_|github_pat_|AKIA)[A-Za-z0-9_-]{16,}"
)


class ParameterError(ValueError):
    """What was asked for was refused before anything ran; the message lists every reason."""


@dataclass(frozen=True)
class Parameter:
    """One assignment of the parameters cell."""

    name: str
    default: Any
    kinds: frozenset[str]  # of KINDS; what a value may be
    element: str | None  # for lists: the kind of every element, None if any
    span: tuple[int, int]  # where the default stands in the cell, in UTF-8 bytes
    limits: Limits = UNLIMITED

    def convert(self, value: Any) -> Any:
        """`value` as this parameter takes it; ValueError says what it takes."""
        value = self._typed(value)
        check_finite(self.name, value)
        self.limits.check(self.name, value)
        return value

    def _typed(self, value: Any) -> Any:
        kind = _kind(value)
        if kind == "int" and "int" not in self.kinds and "float" in self.kinds:
            return float(value)
        if kind not in self.kinds:
            hint = ""
            if kind == "str" and "float" in self.kinds and _is_number(value):
                hint = f" (write {float(value)!r}: YAML takes {value} for a text)"
            raise ValueError(f"{self.name} takes {self._takes()}, not {value!r}{hint}")
        if kind == "list" and self.element is not None:
            only = Parameter(f"each of {self.name}", None, frozenset({self.element}), None, (0, 0))
            return [only.convert(element) for element in value]
        return value

    def parse(self, text: str) -> Any:
        """The value that `--set name=text` means for this parameter; ValueError if none."""
        if self.kinds == frozenset({"str"}):
            return self.convert(text)
        if "None" in self.kinds and text == "None":
            return None
        if "list" in self.kinds and not text.startswith("["):
            text = f"[{text}]"
        try:
            value = read_yaml(text)
        except ValueError:
            value = text
        if "bool" not in self.kinds and "str" in self.kinds:
            value = text  # a text such as "no" or "12" stays a text
        if isinstance(value, str) and "float" in self.kinds and _is_number(value):
            value = float(value)  # 1e-3, which YAML reads as a text
        if isinstance(value, list) and self.element == "float":
            value = [float(x) if isinstance(x, str) and _is_number(x) else x for x in value]
        return self.convert(value)

    def _takes(self) -> str:
        takes = " or ".join(words for kind, words in KINDS.items() if kind in self.kinds)
        return f"{takes} ({self.element} elements)" if self.element else takes


def declared(cell: str, where: str) -> dict[str, Parameter]:
    """The parameters that a parameters cell declares; `where` names the notebook in errors."""
    lines = cell.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    parameters = {}
    for node in ast.parse(cell).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        plain = isinstance(node, ast.Assign) and len(node.targets) == 1
        target = node.targets[0] if plain else getattr(node, "target", None)
        value = getattr(node, "value", None)
        try:
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError
            default = _plain(ast.literal_eval(value))
            kinds, element = _allowed(default, getattr(node, "annotation", None))
        except ValueError as error:
            raise ParameterError(
                f"{where}: line {node.lineno} of the parameters cell is not of the form "
                f"`name = literal value`: {ast.unparse(node)}"
            ) from error
        span = (
            starts[value.lineno - 1] + value.col_offset,
            starts[value.end_lineno - 1] + value.end_col_offset,
        )
        if looks_secret(target.id, default):
            raise ParameterError(f"{where}: {_no_secret(target.id)}")
        parameters[target.id] = Parameter(target.id, default, kinds, element, span)
    return parameters


def resolve(
    stages: Mapping[str, Mapping[str, Parameter]],
    selected: Iterable[str],
    given: Mapping[str, Any],
    settings: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """All parameters of each selected stage: its defaults, then `given`, then `settings`.

    `given` comes from a YAML file: a value goes to every stage that declares its name, and a
    mapping under a stage's name goes to that stage alone. Because such a file describes a whole
    run, it may name parameters of stages that are not selected. `settings` are texts from the
    command line, typed by each stage's own default; each must reach a selected stage.
    Raises ParameterError, which lists all that is wrong.
    """
    selected = list(selected)
    problems: list[str] = []
    every_name = {name for parameters in stages.values() for name in parameters}
    shared = {
        name: value
        for name, value in given.items()
        if name in every_name or not isinstance(value, Mapping)
    }
    sections = {name: value for name, value in given.items() if name not in shared}
    for name in sections:
        if name not in stages:
            problems.append(f"there is no stage {name!r}{nearest(name, stages)}")
    reachable = {name for stage in selected for name in stages[stage]}
    problems += _wrong_names(shared, every_name, "no stage has a parameter")
    elsewhere = settings.keys() & (every_name - reachable)
    for name in sorted(elsewhere):
        owners = [stage.partition("_")[0] for stage in stages if name in stages[stage]]
        verb = "is" if len(owners) == 1 else "are"
        problems.append(
            f"{name!r} is a parameter of {', '.join(owners)}, which {verb} not among these stages"
        )
    others = {name: text for name, text in settings.items() if name not in elsewhere}
    problems += _wrong_names(others, reachable, "no stage has a parameter")
    for stage in sections.keys() & stages.keys():
        problems += _wrong_names(
            sections[stage], set(stages[stage]), f"stage {stage} has no parameter"
        )

    values: dict[str, dict[str, Any]] = {}
    refused: dict[str, list[str]] = {}  # by what is wrong: the stages that refuse it
    for stage in selected:
        parameters = stages[stage]
        values[stage] = {name: parameter.default for name, parameter in parameters.items()}
        asked = [(name, value, Parameter.convert) for name, value in shared.items()]
        asked += [(name, v, Parameter.convert) for name, v in sections.get(stage, {}).items()]
        asked += [(name, text, Parameter.parse) for name, text in settings.items()]
        for name, value, read in asked:
            if name in parameters:
                try:
                    values[stage][name] = read(parameters[name], value)
                except ValueError as error:
                    refused.setdefault(str(error), []).append(stage.partition("_")[0])
    for error, numbers in refused.items():
        problems.append(f"stage {', '.join(numbers)}: {error}")
    if problems:
        raise ParameterError("\n".join(dict.fromkeys(problems)))
    return values


def fill(cell: str, parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> str:
    """The parameters cell with `values` in place of the defaults; comments stay."""
    text = cell.encode()
    for parameter in sorted(parameters.values(), key=lambda p: p.span, reverse=True):
        value = values[parameter.name]
        if value != parameter.default or type(value) is not type(parameter.default):
            start, end = parameter.span
            text = text[:start] + literal(value).encode() + text[end:]
    return text.decode()


def literal(value: Any) -> str:
    """A value as Python source, texts in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(literal(element) for element in value) + "]"
    return repr(value)


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean …?' with the closest of `names`, or what there is."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(names)}" if names else ""


def looks_secret(name: str, value: Any) -> bool:
    """Whether a parameter's name or value looks like a credential, or is a URL that holds one."""
    if _secret_name(name):
        return True
    if isinstance(value, Mapping):
        return any(looks_secret(entry, element) for entry, element in value.items())
    if isinstance(value, (list, tuple)):
        return any(looks_secret("", element) for element in value)
    if not isinstance(value, str):
        return False
    return SECRET_VALUE.search(value) is not None or _secret_url(value)


def _secret_name(name: str) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return any(word.lower() in SECRET_WORDS for word in words)


def _secret_url(text: str) -> bool:
    """`https://user:password@host` and `https://host/v1?api_key=…`."""
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    if not url.scheme or not url.netloc:
        return False
    queries = [name for part in (url.query, url.fragment) for name, _ in parse_qsl(part)]
    return "@" in url.netloc or any(map(_secret_name, queries))


def _no_secret(name: str) -> str:
    return (
        f"{name} looks like a secret, and parameters are published: set it in the environment "
        "instead (HF_TOKEN for the model hub, R2A_API_KEY for a server)"
    )


def _wrong_names(asked: Mapping[str, Any], known: set[str], who: str) -> list[str]:
    problems = []
    for name, value in asked.items():
        if looks_secret(name, value):
            problems.append(_no_secret(name))
        elif name == "run_dir":
            problems.append("run_dir follows from the run id: use --run-id")
        elif name not in known:
            problems.append(f"{who} {name!r}{nearest(name, known - {'run_dir'})}")
    return problems


def _kind(value: Any) -> str:
    kind = "None" if value is None else type(value).__name__
    if kind not in KINDS:
        raise ValueError(f"{value!r} is a {kind}; a parameter is {', '.join(KINDS.values())}")
    return kind


def _plain(value: Any) -> Any:
    return [_plain(element) for element in value] if isinstance(value, (tuple, list)) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _allowed(default: Any, annotation: ast.expr | None) -> tuple[frozenset[str], str | None]:
    """The kinds of value that a default and its annotation allow, and a list's element kind."""
    if annotation is None:
        kind = _kind(default)
        element = None
        if kind == "list":
            elements = {_kind(value) for value in default}
            if elements == {"int", "float"}:
                elements = {"float"}
            element = elements.pop() if len(elements) == 1 else None
        return frozenset(KINDS if kind == "None" else {kind}), element
    kinds, element = set(), None
    parts = [annotation]
    while parts:
        part = parts.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
            parts += [part.left, part.right]
            continue
        if isinstance(part, ast.Subscript):
            inner = part.slice
            element = ast.unparse(inner.value if isinstance(inner, ast.Subscript) else inner)
            part = part.value
        kinds.add(ast.unparse(part))
    if not kinds <= KINDS.keys() or (element is not None and element not in KINDS):
        raise ValueError(f"an annotation is made of {', '.join(KINDS)}")
    return frozenset(kinds), element
