"""A stage: one notebook of `notebooks/`, its parameters cell, and everything its result depends on.

The stages are the py:percent notebooks in order of their number. This file reads their source and
never runs it: which parameters a stage declares, which modules of the package it uses, which
artifacts it reads and writes, which of the user's files it is given, and so whether an earlier
result still holds.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from r2a_utils.folders import CARRIED, PACKAGE, in_wheel, source_folder, work_folder
from r2a_utils.runs.header import Header, read_header
from r2a_utils.runs.parameters import Parameter, ParameterError, declared, nearest

ROOT = work_folder()  # where stages run
NOTEBOOKS = source_folder() / "notebooks"
# Files in the package and in book/data that modules read; a change in any of them makes every
# stage's result old,
_DATA = {".css", ".csv", ".jinja", ".js", ".json", ".jsonl", ".safetensors"}
# and so does a new version of any of these.
NUMERIC_PACKAGES = (
    "nnsight",
    "numpy",
    "pandas",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "xarray",
)
# A parameter that, where it is None, stands for the folder that an environment variable names.
FROM_ENVIRONMENT = {"paper_data": "R2A_PAPER_DATA"}


@dataclass(frozen=True)
class Stage:
    """One stage notebook as it stands in the repository."""

    name: str  # the file's name without .py, as in "03_segment_attention"
    path: Path
    source: str
    notebook: NotebookNode  # without outputs
    parameters: Mapping[str, Parameter]
    parameters_cell: int  # its index in notebook.cells
    header: Header

    @property
    def code(self) -> str:
        """The stage's code alone: prose may change without making later stages old."""
        cells = self.notebook.cells
        return "\n# %%\n".join(cell.source for cell in cells if cell.cell_type == "code")


def load_stages(folder: Path = NOTEBOOKS) -> dict[str, Stage]:
    """All stages of a folder by name, in order. ParameterError for an unusable parameters cell."""
    return {path.stem: load_stage(path) for path in sorted(folder.glob("[0-9][0-9]*_*.py"))}


def load_stage(path: Path) -> Stage:
    """Read one py:percent notebook."""
    source = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(source, fmt="py:percent")
    tagged = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(tagged) != 1:
        raise ParameterError(f"{path.name} must have one cell tagged `parameters`: {len(tagged)}")
    parameters = declared(notebook.cells[tagged[0]].source, path.name)
    if "run_dir" not in parameters:
        raise ParameterError(f"{path.name}: the parameters cell must declare run_dir")
    header = read_header(path)
    for name, limits in header.limits.items():
        if name not in parameters:
            raise ParameterError(f"{path.name}: its header limits {name!r}, which is no parameter")
        parameters[name] = replace(parameters[name], limits=limits)
    return Stage(path.stem, path, source, notebook, parameters, tagged[0], header)


def select(stages: Mapping[str, Stage], asked: Sequence[str] | None) -> list[str]:
    """The asked-for stages in order, all if None; a stage's number is enough."""
    if asked is None:
        return list(stages)
    chosen = set()
    for name in asked:
        matches = [stage for stage in stages if name in _names(stage)]
        if not matches:
            raise ParameterError(f"there is no stage {name!r}{nearest(name, stages)}")
        chosen.update(matches)
    return [stage for stage in stages if stage in chosen]


def _names(stage: str) -> tuple[str, ...]:
    """What a stage may be called: `04b_what_the_heads_do` is 04b and 4b, and its noun."""
    number, _, noun = stage.partition("_")
    return stage, number, number.removeprefix("0"), noun


def needed_stages(stage: Stage, earlier: Iterable[Stage]) -> list[str]:
    """Which of the earlier stages write something that this stage reads from the run folder."""
    reads = set(stage.header.reads)
    return [other.name for other in earlier if reads & set(other.header.writes)]


def source_hash(code: str) -> str:
    """SHA-256 of what a stage's code runs: itself, the modules it imports, the bundled data.

    Modules are followed through their own imports, so that a change in a module that a stage does
    not use leaves its result standing.
    """
    found: dict[str, Path] = {}
    sources = [(code, "r2a_utils")]
    while sources:
        text, within = sources.pop()
        for name in _modules(text, within, PACKAGE):
            path = PACKAGE.joinpath(*name.split(".")[1:])
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if name not in found and path.exists():
                found[name] = path
                inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
                sources.append((path.read_text(encoding="utf-8"), inside))
    files = [*found.values(), *(path for path in PACKAGE.rglob("*") if path.suffix in _DATA)]
    # by name as a checkout has it: the same code has the same hash in a wheel
    named = {p.relative_to(PACKAGE.parent): p for p in files if not p.is_relative_to(CARRIED)}
    source = source_folder()
    data = [path for path in (source / "book" / "data").rglob("*") if path.suffix in _DATA]
    named |= {path.relative_to(source): path for path in data}
    digest = hashlib.sha256(code.encode())
    for name, path in sorted(named.items()):
        digest.update(str(name).encode() + _file_hash(path))
    return digest.hexdigest()


def data_hashes(values: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files and folders that parameters name, by parameter: the user's own problems,
    weights, the paper's data.

    A relative path counts from the folder in which stages run. What is no path of anything
    there is left out.
    """
    hashes = {}
    for name, value in values.items():
        if value is None and name in FROM_ENVIRONMENT:
            value = os.environ.get(FROM_ENVIRONMENT[name])
        # os.path says no, where pathlib raises, to a text that is no path
        path = os.path.expanduser(value) if isinstance(value, str) and value else None
        if path and os.path.exists(ROOT / path):
            hashes[name] = _content_hash(ROOT / path)
    return hashes


def numeric_versions() -> dict[str, str]:
    """The versions of the packages that the numbers depend on, without a build's local part."""
    return {name: version(name).partition("+")[0] for name in NUMERIC_PACKAGES}


def code_commit() -> str | None:
    """The commit of the code that runs, with "-dirty" where tracked files differ from it.

    None outside a git checkout.
    """
    if in_wheel():
        return None  # the current folder may be a checkout of something else
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    with suppress(OSError):  # no git on this machine
        described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return described.stdout.strip() or None
    return None


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of all names and files in a folder."""
    if path.is_file():
        return _file_hash(path).hex()
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(str(file.relative_to(path)).encode() + _file_hash(file))
    return digest.hexdigest()


def _file_hash(path: Path) -> bytes:
    state = path.stat()
    return _hash_of(path, state.st_mtime_ns, state.st_size)


@cache
def _hash_of(path: Path, modified: int, size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _modules(source: str, within: str, package: Path) -> set[str]:
    """The dotted names of this package that a source, itself part of `within`, may use."""
    names, rooms = set(), {}
    nodes = list(ast.walk(ast.parse(_without_magics(source))))
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = within.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names.add(base)
            for alias in node.names:
                names.add(f"{base}.{alias.name}")
                rooms[alias.asname or alias.name] = f"{base}.{alias.name}"
        elif isinstance(node, ast.Constant) and re.fullmatch(r"\w+\.py", str(node.value)):
            names.add(f"{within}.{node.value[:-3]}")  # a module that is run as a script
    for node in nodes:  # `figures.six_boxes`, where the room itself was imported
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.update([f"{rooms[node.value.id]}.{node.attr}"] if node.value.id in rooms else [])
    parts = {_home(name, package) for name in names if name.split(".")[0] == "r2a_utils"}
    # importing a.b.c runs a, a.b and a.b.c
    return {name.rsplit(".", cut)[0] for name in parts for cut in range(name.count(".") + 1)}


def _home(name: str, package: Path) -> str:
    """The module that a dotted name comes from, through the faces of rooms that export it."""
    parent, _, attribute = name.rpartition(".")
    face = package.joinpath(*parent.split(".")[1:], "__init__.py")
    if not parent or not face.is_file():
        return name
    for module, exported in _exports(face.read_text(encoding="utf-8")).items():
        if attribute in exported:
            return _home(f"{parent}.{module}.{attribute}", package)
    return name


def _exports(face: str) -> dict[str, list[str]]:
    """What a room's face exports, by module: the `submod_attrs` of `lazy_loader.attach`."""
    for node in ast.walk(ast.parse(face)):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            return ast.literal_eval(node.value)
    return {}


def _without_magics(code: str) -> str:
    """Code that Python can parse: IPython's magics and shell lines become comments."""
    return re.sub(r"(?m)^(\s*)[%!]", r"\1# ", code)
