"""What may lie in the repository: clean text, no outputs, nothing large, nothing pickled."""

import re
import subprocess

import pytest
import yaml

from r2a_utils.runs.stage import ROOT

LARGEST = 2_000_000  # bytes; the bundled weights alone are larger
WEIGHTS = "r2a_utils/tiny/model.safetensors"
# Copied as others wrote them; binary, or data whose last byte is not ours to choose.
NOT_OURS = ("book/assets/mathjax/",)
NOT_TEXT = {".csv", ".jinja", ".json", ".png", ".r2a", ".safetensors"}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()]


FILES = tracked()
TEXTS = [
    path for path in FILES if not path.startswith(NOT_OURS) and (ROOT / path).suffix not in NOT_TEXT
]
if not FILES:
    pytest.skip("not a git checkout", allow_module_level=True)


def test_text_files_end_in_one_line_break_and_have_no_trailing_spaces():
    wrong = []
    for path in TEXTS:
        text = (ROOT / path).read_text(encoding="utf-8")
        if "\r" in text or (text and (not text.endswith("\n") or text.endswith("\n\n"))):
            wrong.append(f"{path}: its end")
        for number, line in enumerate(text.split("\n"), start=1):
            if line != line.rstrip() or line.startswith(("<<<<<<< ", ">>>>>>> ")):
                wrong.append(f"{path}:{number}: {line[-30:]!r}")
    assert wrong == []


def test_nothing_large_and_no_outputs_are_kept():
    # how large an archive of a run may be, tests/publishing/test_published.py knows
    files = [path for path in FILES if not path.endswith(".r2a")]
    large = [path for path in files if (ROOT / path).stat().st_size > LARGEST]
    assert large == [WEIGHTS]
    refused = (".ipynb", ".pkl", ".pickle", ".pt", ".bin", ".nc", ".parquet")
    assert [path for path in FILES if path.endswith(refused)] == []


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith((".yml", ".yaml"))])
def test_yaml_can_be_read(path):
    assert yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_pre_commit_runs_what_make_lint_and_ci_run():
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].split("\n\n")[0]
    lint = [line.strip() for line in recipe.splitlines() if line.startswith("\t")]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]  # nothing to fetch
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}
    asked = [line.replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in lint]
    assert entries[: len(asked)] == asked
    assert entries[len(asked) :] == [".venv/bin/python -m pytest --quiet tests/test_tree.py"]
    assert "make lint" in (ROOT / ".ci/run").read_text().splitlines()
    assert "make test" in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_files_and_folders_that_a_page_names_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|yml|md|bib|txt|toml|png|cff))`", text))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", text))
    assert len(named) > 5
    places = ("", "r2a_utils/", "r2a_utils/figures/", "book/")
    missing = [n for n in named if not any((ROOT / place / n).exists() for place in places)]
    assert [name for name in missing if "NN" not in name and "*" not in name] == []


def test_what_the_recipes_name_is_in_the_code():
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How to add")[2]
    named = set(re.findall(r"`([A-Za-z_]+)(?:\(.*?\))?`", recipes))
    code = "\n".join((ROOT / path).read_text() for path in FILES if path.endswith((".py", ".yml")))
    assert len(named) > 30
    assert [name for name in named if not re.search(rf"\b{name}\b", code)] == []


def test_every_room_stands_in_the_tree_that_contributing_shows():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")[1]
    shown = set(re.findall(r"(?m)^  (\w+(?:/|\.py)) ", tree))
    package = ROOT / "r2a_utils"
    rooms = {f"{face.parent.name}/" for face in package.glob("*/__init__.py")}
    assert shown == rooms | {path.name for path in package.glob("[!_]*.py")}
