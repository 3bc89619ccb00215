"""The figures of a stage as PDF and SVG, kept beside its page for `r2a export`.

A page shows each figure as a picture. While a stage runs, what it shows is drawn as vectors, too,
into `notebooks/<stage>.figures.zip`, under a digest of the picture, by which it is found again. In
a reader's own notebook nothing is kept. This file knows bytes, and nothing of what they show.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from r2a_utils.runs.header import kernel_environment, told_to_kernels

KINDS = ("pdf", "svg")
# Where the kernel of a stage keeps them; set where a stage is executed and nowhere else.
_VARIABLE = "R2A_FIGURES"


def vectors_file(folder: Path, stage: str) -> Path:
    """Where a run folder keeps the figures of one stage."""
    return folder / "notebooks" / f"{stage}.figures.zip"


def kept_in(file: Path) -> AbstractContextManager[None]:
    """Let kernels that are started inside keep their figures in `file`, which begins anew."""
    file.unlink(missing_ok=True)
    return told_to_kernels({_VARIABLE: str(file.resolve())})


def keep_vectors(picture: bytes, draw: Callable[[str], bytes]) -> None:
    """Keep a figure that is shown as `picture`, as `draw` gives it for each kind."""
    file = kernel_environment().get(_VARIABLE)
    if file is None:
        return
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as kept:
        if _name(picture, KINDS[0]) not in kept.namelist():
            for kind in KINDS:
                kept.writestr(_name(picture, kind), draw(kind))


def read_vectors(file: Path, picture: bytes, kind: str) -> bytes | None:
    """A figure in the given kind; None where it was not kept."""
    if not file.exists():
        return None
    with zipfile.ZipFile(file) as kept:
        name = _name(picture, kind)
        return kept.read(name) if name in kept.namelist() else None


def _name(picture: bytes, kind: str) -> str:
    return f"{hashlib.sha256(picture).hexdigest()[:16]}.{kind}"
