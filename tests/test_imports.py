"""Who may import whom: the order of the rooms, and what stays quick to import."""

from __future__ import annotations

import ast
import graphlib
import importlib
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
ROOMS = sorted(
    ".".join(path.parent.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("*/__init__.py")
)

# The order of the house. A module may import from its own room and from what stands in an earlier
# line; a name is a module, or a room where it stands for all of it.
ORDER = [
    {"folders"},
    {"stats", "runs.folder", "runs.header", "runs.pieces", "runs.vectors"},
    {"texts"},
    {"models", "paper", "tiny", "figures"},
    {"engine", "collecting"},
    {"answers", "attention"},
    {"causal"},
    {"instruments"},
    {"explorers", "playground", "training"},
    {"runs"},
    {"publishing"},
    {"teaching"},
    {"doctor"},
    {"cli"},
]

# The only rooms that open nnsight traces or know how transformers builds a decoder.
INSIDE_MODELS = {"models", "engine"}
PARTS_OF_DECODERS = {"self_attn", "q_proj", "k_proj", "v_proj", "o_proj", "mlp", "input_layernorm"}

# What runs notebooks and makes pages of them, and all that it knows of what they measure.
MACHINERY = {"runs", "publishing", "teaching"}
KNOWN_TO_MACHINERY = {
    "folders",
    "stats",
    "runs.folder",
    "runs.header",
    "models.memory",
    "models.registry",
    "figures.comparison",
    "tiny.page_weights",
}
ALLOWED = {"runs": set(), "publishing": {"paper"}, "teaching": set()}


def room(module: str) -> str:
    """The room of a module; modules at the top of the package are rooms of their own."""
    return module.split(".")[0]


def place(module: str) -> int | None:
    """The line of the order in which a module stands."""
    for names in (module, room(module)):
        for line, group in enumerate(ORDER):
            if names in group:
                return line
    return None


def exported(face: str) -> dict[str, str]:
    """Name → module that defines it, as the face of a room (or of the package) exports it."""
    tree = ast.parse(PACKAGE.joinpath(*filter(None, face.split(".")), "__init__.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            homes = ast.literal_eval(node.value)
            return {name: module for module, names in homes.items() for name in names}
    return {}


def imports(tree: ast.AST, late: bool = True) -> set[str]:
    """Full names of all that is imported: for types, and when a function runs if `late`."""
    found, todo = set(), [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        only_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if late or not (only_for_types or isinstance(node, ast.FunctionDef)):
            todo += ast.iter_child_nodes(node)
    return found


def home(name: str) -> str | None:
    """The module of this package that a full name comes from; None if it names no module."""
    parts = name.removeprefix("r2a_utils.").split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in MODULES:
            return ".".join(parts[:length])
    face = parts[0] if parts[0] in ROOMS else ""
    attribute = parts[-1]
    module = exported(face).get(attribute)
    return module and home(".".join(filter(None, [face, module, attribute])))


def siblings(name: str, late: bool = True) -> set[str]:
    """The modules of this package that a module imports, through faces or directly."""
    ours = {n for n in imports(MODULES[name], late) if n.split(".")[0] == "r2a_utils"}
    return {module for n in ours if (module := home(n))} - {name}


def from_library(name: str, library: str) -> set[str]:
    return {n for n in imports(MODULES[name]) if n == library or n.startswith(library + ".")}


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_every_module_stands_in_the_order_and_the_order_names_nothing_else():
    assert not [name for name in MODULES if place(name) is None]
    there = set(MODULES) | set(ROOMS)
    assert not [name for group in ORDER for name in group if name not in there]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_arrow_runs_back(name):
    """Nor sideways: two rooms of one line do not know each other."""
    for other in siblings(name):
        same_room = room(other) == room(name)
        assert place(other) < place(name) or same_room, f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) in MACHINERY))
def test_running_and_publishing_know_no_analysis(name):
    if name.startswith("teaching.checks"):
        return  # they try a participant's function against the package's
    known = KNOWN_TO_MACHINERY | {m for m in MODULES if room(m) in ALLOWED[room(name)]}
    assert {m for m in siblings(name) if room(m) not in MACHINERY} <= known


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) not in INSIDE_MODELS))
def test_only_two_rooms_look_inside_models(name):
    assert not from_library(name, "nnsight")
    assert not from_library(name, "transformers.models")
    if room(name) != "training":  # the bundled model's recipe builds and trains it
        touched = {n.attr for n in ast.walk(MODULES[name]) if isinstance(n, ast.Attribute)}
        assert not touched & PARTS_OF_DECODERS


def test_no_two_modules_need_each_other():
    graph = {name: siblings(name) for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError shows the cycle


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_pickled(name):
    assert not {
        n for n in imports(MODULES[name]) if n.split(".")[0] in {"pickle", "joblib", "dill"}
    }


@pytest.mark.parametrize("face", ["", *ROOMS])
def test_a_room_has_a_face(face):
    """Each says what it knows and what it does not, and all that it exports is there."""
    module = importlib.import_module(".".join(filter(None, ["r2a_utils", face])))
    assert module.__doc__
    for name in exported(face):
        assert getattr(module, name) is not None
        assert name in module.__all__


def test_figures_are_drawn_without_torch():
    code = "import sys; from r2a_utils.figures import six_boxes; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_the_package_itself_loads_nothing():
    loaded = run("import sys, r2a_utils; print(*sorted({m.split('.')[0] for m in sys.modules}))")
    assert not {"torch", "transformers", "nnsight", "pandas", "xarray", "numpy"} & set(
        loaded.split()
    )


def test_the_registry_is_read_without_torch():
    code = "import sys; from r2a_utils.models import REGISTRY; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_a_misspelt_name_is_no_attribute():
    with pytest.raises(AttributeError, match="segment_masses"):
        r2a_utils.segment_masses  # noqa: B018
