"""The page that says how to rerun quotes messages, files and commands that exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from r2a_utils import cli
from r2a_utils.runs.parameters import ParameterError, resolve
from r2a_utils.runs.stage import ROOT, load_stages
from r2a_utils.texts import FAULTS, R1_TAGS, MalformedError

PAGE = (ROOT / "book" / "rerun.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DECLARED = {name: stage.parameters for name, stage in load_stages().items()}
NAMED = {"tags.open": "<think>", "tags.close": "</think>"}


def text_of(node: ast.expr) -> str:
    """A text of the source as it is shown, its variable parts as one character each."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.FormattedValue):
        return NAMED.get(ast.unparse(node.value), "\0")
    return "".join(map(text_of, node.values))


def refusal(given: dict) -> str:
    with pytest.raises(ParameterError) as error:
        resolve(DECLARED, DECLARED, given, {})
    return str(error.value)


@pytest.fixture(scope="module")
def messages() -> str:
    """All texts of the package, and refusals that are put together from several."""
    trees = [ast.parse(path.read_text("utf-8")) for path in ROOT.glob("r2a_utils/**/*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    texts = [text_of(n) for n in nodes if isinstance(n, ast.JoinedStr)]
    texts += [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    texts += [str(MalformedError(fault, R1_TAGS)) for fault in FAULTS]
    names = [n.attr for n in nodes if isinstance(n, ast.Attribute)]
    return "\n".join([*texts, *names, refusal({"n_problem": 1}), refusal({"n_problems": "many"})])


QUOTED = re.findall(r"(?m)^\| `(.+?)`(?: .*?)? \| ", PAGE)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_message_of_the_page_is_one_that_the_program_gives(quoted, messages):
    pieces = [re.escape(piece.strip()) for piece in quoted.split("…") if piece.strip()]
    assert re.search(r"[^\n]*?".join(pieces), messages)


def test_the_page_quotes_messages():
    assert len(QUOTED) > 12


def commands(text: str) -> list[str]:
    blocks = "\n".join(re.findall(r"(?ms)^```\n(.*?)^```", text))
    lines = [line.partition("#")[0] for line in blocks.splitlines()]
    return [line.strip() for line in lines if line.startswith(".venv/bin/r2a ")]


@pytest.mark.parametrize("command", [*commands(PAGE), *commands(README)])
def test_a_command_in_print_is_one_that_the_program_takes(command, tmp_path):
    arguments = shlex.split(command)[1:]
    options = cli._parser().parse_args(arguments)
    if arguments[0] != "run":
        return
    if options.params is not None:
        copies = {copy: file for file, copy in re.findall(r"(?m)^cp (\S+) (\S+)", PAGE)}
        original = copies.get(str(options.params), options.params)
        assert (ROOT / original).is_file()
    own = tmp_path / "problems.jsonl"  # the reader's own file, which the command names
    own.write_text('{"text": "How many?", "label": "3"}\n')
    texts = [text.replace(own.name, str(own)) for text in options.set]
    settings = dict(cli._name_and_value(text) for text in texts)
    assert resolve(DECLARED, DECLARED, {}, settings)


@pytest.mark.parametrize("path", re.findall(r"\bparams/[\w.-]+\.yml", PAGE + README))
def test_a_parameter_file_in_print_is_there(path):
    assert Path(ROOT / "book" / path).is_file()
