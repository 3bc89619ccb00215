"""The pieces of a stage that is under way: what took long is kept, so that a kill costs no more.

While a stage runs, a function marked with `kept_in_pieces` (the grid of one pair, one trace under
many interventions, the masses of a batch) leaves its result in the run folder, under a digest of
what it was asked, and a second try of the same stage takes it from there. "The same" is strict: the
folder is named by all that the stage's result depends on, code and versions included, and it goes
when the stage has completed. Outside a stage nothing is kept. This file knows no model and never
pickles.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from r2a_utils.runs.folder import write_array, write_aside
from r2a_utils.runs.header import kernel_environment, told_to_kernels

# Where a kernel keeps its pieces; set where a stage is executed and nowhere else.
_VARIABLE = "R2A_PIECES"
PIECES = "pieces"
LONG = 1.0  # seconds; what took less is made again sooner than it is looked after

Result = TypeVar("Result", pd.DataFrame, xr.Dataset, np.ndarray)


class _NoDigestError(TypeError):
    """Something that cannot be told from something else, such as a function."""


def pieces_of(run: Path, stage: str, inputs: str) -> AbstractContextManager[None]:
    """Let kernels that are started inside keep the pieces of a stage with these inputs.

    `inputs` is a hash of all that its result depends on. Pieces of other inputs go at once.
    """
    place = run.resolve() / PIECES / stage
    for other in place.glob("*"):
        if other.name != inputs:
            shutil.rmtree(other)
    return told_to_kernels({_VARIABLE: str(place / inputs)})


def clear_pieces(run: Path, stage: str) -> None:
    """Remove the pieces of a stage, whose result is whole now."""
    shutil.rmtree(run / PIECES / stage, ignore_errors=True)
    with suppress(OSError):  # another stage's are still there, or none ever were
        (run / PIECES).rmdir()


def kept_in_pieces(function: Callable[..., Result]) -> Callable[..., Result]:
    """Keep what a function returns, a table, a Dataset or an array, where it took long in a stage.

    Its arguments are told apart by their content; a model by the digest of its weights. A call
    with an argument that has no content to go by is made every time.
    """

    @functools.wraps(function)
    def kept(*args: Any, **kwargs: Any) -> Result:
        folder = kernel_environment().get(_VARIABLE)
        if folder is None:
            return function(*args, **kwargs)
        digest = hashlib.sha256(f"{function.__module__}.{function.__qualname__}".encode())
        try:
            for part in _parts((args, kwargs)):
                digest.update(part)
        except _NoDigestError:
            return function(*args, **kwargs)
        name = digest.hexdigest()[:32]
        for suffix, read in _READ.items():
            path = Path(folder) / (name + suffix)
            if path.exists():
                return read(path)
        clock = time.monotonic()
        result = function(*args, **kwargs)
        if time.monotonic() - clock >= LONG:
            _keep(Path(folder), name, result)
        return result

    return kept


def _keep(folder: Path, name: str, result: pd.DataFrame | xr.Dataset | np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(result, pd.DataFrame):
        write_aside(folder / f"{name}.parquet", lambda part: result.to_parquet(part))
    elif isinstance(result, np.ndarray):
        write_array(folder / f"{name}.npy", result)
    else:
        path = folder / f"{name}.nc"
        write_aside(path, lambda part: result.to_netcdf(part, engine="netcdf4"))


_READ: dict[str, Callable[[Path], Any]] = {
    ".parquet": pd.read_parquet,
    ".npy": functools.partial(np.load, allow_pickle=False),
    ".nc": functools.partial(xr.load_dataset, engine="netcdf4"),
}


def _parts(value: Any) -> Iterator[bytes]:
    """The content of a value as bytes, each behind the name of its kind."""
    yield type(value).__name__.encode() + b":"
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        yield repr(value).encode()
    elif isinstance(value, range | slice):
        yield repr((value.start, value.stop, value.step)).encode()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from _parts(key)
            yield from _parts(value[key])
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Sequence):
        yield str(len(value)).encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(value)).encode()
    elif hasattr(value, "weights_sha256"):  # a model
        yield f"{value.weights_sha256} {value.dtype}".encode()
    elif hasattr(value, "detach"):  # a tensor; in float64 two that differ stay different
        yield from _parts(value.detach().double().cpu().numpy())
    elif hasattr(value, "activations"):  # a recorded pass: what it was made of decides it
        yield from _parts(tuple(value.token_ids))
    elif is_dataclass(value):
        for field in fields(value):
            yield field.name.encode()
            yield from _parts(getattr(value, field.name))
    else:
        raise _NoDigestError(type(value).__name__)
