"""Where the notebooks and the book's pages lie, and where runs are made.

In a checkout both are its root. A wheel carries the sources inside the package (`setup.py` puts
them there), and what is made goes into the folder from which a command is called. This file knows
these places and nothing of what lies in them.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CARRIED = PACKAGE / "carried"  # in an installed wheel alone


def in_wheel() -> bool:
    """Whether the package runs from a wheel, and not from a checkout."""
    return CARRIED.is_dir()


def source_folder() -> Path:
    """The folder that holds `notebooks/`, `book/` and `_config.yml`, to be read and not changed."""
    return CARRIED if in_wheel() else PACKAGE.parent


def found(path: Path) -> Path:
    """A path as it was given or, where nothing lies there, the file of that name in the sources."""
    ours = source_folder() / path
    return ours if ours.exists() and not path.exists() else path


def work_folder() -> Path:
    """The folder in which `runs/`, `lab/` and `_build/` are made, and from which stages run."""
    return Path.cwd() if in_wheel() else PACKAGE.parent
