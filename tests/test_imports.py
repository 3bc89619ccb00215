"""Who may import whom: the order of the house, and what stays quick to import."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import r2a_utils

PACKAGE = Path(r2a_utils.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}

# The files that open nnsight traces or know how transformers builds a decoder; replay.py is the
# writing half of tracing.py.
INSIDE_MODELS = {"models", "tracing", "replay"}
PARTS_OF_DECODERS = {"self_attn", "q_proj", "k_proj", "v_proj", "o_proj", "mlp", "input_layernorm"}

# Those that run stages and publish them, and the only modules of the rest that they know.
MACHINERY = {"parameters", "stages", "execution", "runs", "lab", "prose", "captions"}
MACHINERY |= {"findings", "overview", "plans", "publish", "summary"}
MACHINERY |= {"copies", "exercises", "plain_markdown", "workshop_copies"}
KNOWN_TO_MACHINERY = {"artifacts", "needs", "paper", "plots_findings", "registry"}
ABOVE_EVERYTHING = {"cli"}

# Each group may import from itself and from groups above it in this list.
ORDER = [
    {"registry", "weights", "models", "traces"},
    {"tracing", "replay"},
    {"attention", "rows", "patching", "interventions"},
    {"heads", "statistics"},
    {name for name in MODULES if name.split("_")[0] == "plots"},
    {"explorers"},
    {"workshop"},
    {name for name in MODULES if name.split("_")[0] == "workshop"}
    - {"workshop", "workshop_copies"},
    MACHINERY,
    ABOVE_EVERYTHING,
]


def imports(tree: ast.AST, late: bool = True) -> set[str]:
    """Full names of imported modules; `late` includes those that functions import when they run."""
    found, todo = set(), [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        only_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not only_for_types and (late or not isinstance(node, ast.FunctionDef)):
            todo += ast.iter_child_nodes(node)
    return found


def siblings(name: str, late: bool = True) -> set[str]:
    """The modules of this package that a module imports."""
    found = {n.removeprefix("r2a_utils.") for n in imports(MODULES[name], late)}
    return (found & set(MODULES)) - {name}


def from_library(name: str, library: str) -> set[str]:
    return {n for n in imports(MODULES[name]) if n == library or n.startswith(library + ".")}


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("name", sorted(set(MODULES) - INSIDE_MODELS))
def test_only_three_files_look_inside_models(name):
    assert not from_library(name, "nnsight")
    assert not {
        n for n in from_library(name, "transformers") if n.startswith("transformers.models")
    }
    if not name.startswith("tiny."):  # the bundled model's recipe builds and trains it
        touched = {n.attr for n in ast.walk(MODULES[name]) if isinstance(n, ast.Attribute)}
        assert not touched & PARTS_OF_DECODERS


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_imports_from_a_later_group(name):
    ranks = {module: rank for rank, group in enumerate(ORDER) for module in group}
    later = {s for s in siblings(name) if ranks.get(s, 0) > ranks.get(name, len(ORDER))}
    assert not later


@pytest.mark.parametrize("name", sorted(MODULES))
def test_running_and_publishing_know_no_analysis_nor_it_them(name):
    if name in MACHINERY:
        assert siblings(name) <= MACHINERY | KNOWN_TO_MACHINERY
    elif name not in ABOVE_EVERYTHING:
        assert not siblings(name) & MACHINERY


def test_no_two_modules_need_each_other_to_load():
    graph = {name: siblings(name, late=False) for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError shows the cycle


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_pickled(name):
    assert not {
        n for n in imports(MODULES[name]) if n.split(".")[0] in {"pickle", "joblib", "dill"}
    }


def test_figures_are_drawn_without_torch():
    assert run("import sys, r2a_utils.plots; print('torch' in sys.modules)") == "False"


def test_the_package_itself_loads_nothing():
    loaded = run("import sys, r2a_utils; print(*sorted({m.split('.')[0] for m in sys.modules}))")
    assert not {"torch", "transformers", "nnsight", "pandas", "xarray", "numpy"} & set(
        loaded.split()
    )


def test_the_registry_is_read_without_torch():
    code = "import sys; from r2a_utils.registry import REGISTRY; print('torch' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize("name", r2a_utils.__all__)
def test_public_names_are_there(name):
    value = getattr(r2a_utils, name)
    assert name in dir(r2a_utils)
    if name != "__version__":
        assert value.__module__.startswith("r2a_utils.")


def test_a_misspelt_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'segment_masses'"):
        r2a_utils.segment_masses  # noqa: B018
