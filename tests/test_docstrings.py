"""What the rooms export is described: each has a docstring, and says what it raises."""

import ast
import importlib
import inspect
import textwrap
from pathlib import Path

import r2a_utils

PACKAGE = Path(r2a_utils.__file__).parent
ROOMS = sorted(
    ".".join(face.parent.relative_to(PACKAGE).parts) for face in PACKAGE.glob("*/**/__init__.py")
)


def exported() -> dict[str, object]:
    """Every function and class that a face exports, and every public method of such a class."""
    found = {}
    for room in ROOMS:
        face = importlib.import_module(f"r2a_utils.{room}")
        for name in getattr(face, "__all__", ()):
            thing = inspect.unwrap(getattr(face, name))
            ours = getattr(thing, "__module__", "").startswith("r2a_utils.")
            if not ours or not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue  # a constant
            found[f"{room}.{name}"] = thing
            for key, value in vars(thing).items() if inspect.isclass(thing) else ():
                function = getattr(value, "__func__", value)
                if not key.startswith("_") and inspect.isfunction(function):
                    found[f"{room}.{name}.{key}"] = function
    return found


EXPORTED = exported()


def raised(tree: ast.AST) -> set[str]:
    errors = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    called = [error.func for error in errors if isinstance(error, ast.Call)]
    return {error.id for error in called if isinstance(error, ast.Name)}


def caught(node: ast.AST) -> set[str]:
    """What is raised in the body of a `try` for its own handlers."""
    if not isinstance(node, ast.Try):
        return set()
    handled = " ".join(ast.unparse(handler.type) for handler in node.handlers if handler.type)
    return {name for part in node.body for name in raised(part) if name in handled}


def silent(thing) -> set[str]:
    """The errors that a function's own body raises by name, and its docstring does not name."""
    if inspect.isclass(thing):
        return set()  # what it checks when it is made, its fields say
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    names = raised(tree) - {name for node in ast.walk(tree) for name in caught(node)}
    return {name for name in names if name not in (thing.__doc__ or "")}


def test_what_a_face_exports_has_a_docstring():
    assert len(EXPORTED) > 150
    said = {name: thing.__doc__ or "" for name, thing in EXPORTED.items()}
    # a dataclass without a docstring gets its own signature
    bare = [n for n, text in said.items() if not text or text.startswith(f"{n.split('.')[-1]}(")]
    assert bare == []


def test_what_raises_says_so():
    assert [name for name, thing in EXPORTED.items() if silent(thing)] == []
