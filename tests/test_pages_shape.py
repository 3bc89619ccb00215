"""The stage notebooks are short steps: cells, functions and imports that a reader takes in at once.

Counted are lines of code: comments and blank lines do not count, nor does the parameters cell,
which is a list. A function is counted from its `def` to its end, a docstring left out.
"""

import ast
import io
import re
import tokenize

import pytest

from r2a_utils.runs.stage import load_stages

STAGES = load_stages()
MOST_IN_CELL, MOST_IN_FUNCTION, MOST_IMPORTS = 25, 12, 8

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
SILENT |= {tokenize.ENDMARKER, tokenize.ENCODING}


def code_cells(stage) -> list[str]:
    cells = enumerate(stage.notebook.cells)
    code = [c.source for i, c in cells if c.cell_type == "code" and i != stage.parameters_cell]
    return [re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source) for source in code]


def lines_of_code(source: str) -> set[int]:
    """The lines that hold anything but a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spoken = [token for token in tokens if token.type not in SILENT]
    return {n for token in spoken for n in range(token.start[0], token.end[0] + 1)}


def functions(source: str) -> dict[str, int]:
    """The functions of a cell, with their lines of code."""
    found, lines = {}, lines_of_code(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            own = lines & set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node):
                own -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            found[node.name] = len(own)
    return found


def imports(source: str) -> int:
    """The statements that import from this package."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return sum((node.module or "").startswith("r2a_utils") for node in nodes)


@pytest.mark.parametrize("name", STAGES)
def test_cells_are_short(name):
    counts = [(len(lines_of_code(c)), c.partition("\n")[0]) for c in code_cells(STAGES[name])]
    assert [count for count in counts if count[0] > MOST_IN_CELL] == []


@pytest.mark.parametrize("name", STAGES)
def test_functions_are_short(name):
    counts = [item for c in code_cells(STAGES[name]) for item in functions(c).items()]
    assert [count for count in counts if count[1] > MOST_IN_FUNCTION] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_page_imports_from_a_few_rooms(name):
    assert sum(map(imports, code_cells(STAGES[name]))) <= MOST_IMPORTS


def test_comments_and_docstrings_are_no_code():
    cell = '# why\nx = 1  # so\n\n\ndef f():\n    """Text\n\n    more."""\n    return x\n'
    assert len(lines_of_code(cell)) == 6 and functions(cell) == {"f": 2}
