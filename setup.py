"""What pyproject.toml cannot say: a wheel carries the notebooks and the book's pages.

They are put into the package as `r2a_utils/carried/`, where `r2a_utils/folders.py` looks for them.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIED = (
    "notebooks",
    "book",
    "_config.yml",
    "pyproject.toml",
    "setup.py",
    "constraints.txt",
    "CITATION.cff",
    "LICENSE",
)


class WithSources(build_py):
    """Copies the sources beside the modules of a wheel; an editable install reads them in place."""

    def run(self):
        super().run()
        place = Path(self.build_lib) / "r2a_utils" / "carried"
        shutil.rmtree(place, ignore_errors=True)
        for path in () if self.editable_mode else map(Path, CARRIED):
            if path.is_dir():
                shutil.copytree(path, place / path, ignore=shutil.ignore_patterns("__pycache__"))
            elif path.exists():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / path)


setup(cmdclass={"build_py": WithSources})
