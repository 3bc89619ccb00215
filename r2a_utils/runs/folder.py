"""One run folder: what the stages leave there and what they read from each other.

A run is a folder, and the stages know each other only through it::

    runs/<run id>/
      parameters.yml   the parameters that were asked for
      manifest.json    for each stage: inputs, parameters, versions, model, device, host, duration
      traces/          completions, one JSON Lines file a condition
      arrays/          labelled arrays, netCDF
      tables/          tables, Parquet
      records/         small numbers, JSON; the book's prose quotes them
      figures/         figures that the book's home page shows, PNG
      notebooks/       the executed notebooks, and their figures as vectors

This file knows the layout and the formats. It does not know what the numbers mean, runs nothing,
and never pickles. Whatever it writes is written beside its place and renamed, so that a killed
stage leaves no half-written file behind.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import xarray as xr

from r2a_utils.folders import source_folder
from r2a_utils.runs.header import Header, declared_here, makers

NOTEBOOKS = source_folder() / "notebooks"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# A DataArray is stored as a data set of one variable; this attribute says which one, so that
# reading gives back what was written: a DataArray or a Dataset.
_ARRAY_ATTRIBUTE = "r2a_data_array"
_ARRAY_WITHOUT_NAME = "values"


class RunFolderError(RuntimeError):
    """A run folder that cannot be used as it is; the message says why and what to do."""


class StageEnd(Exception):  # noqa: N818  no error: what there is has been shown
    """Raised by `Run.end`: a stage that has nothing more to measure; the message says why."""


@dataclass(frozen=True)
class Run:
    """One run's folder. All paths that a stage needs come from here.

    `header` is what the stage that runs has declared; without one, everything may be used.
    """

    folder: Path
    header: Header | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in `folder`, which is made if it does not exist.

        A relative folder counts from the working directory, in which stages run.
        While a stage runs, reading or writing what its header does not declare is a ValueError.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, declared_here())

    def completions_path(self, condition: str) -> Path:
        """The JSON Lines file that holds the completions of one condition."""
        self._check("traces", condition, "reads", "writes")
        return self._path("traces", condition, ".jsonl")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table as Parquet; column names must be strings."""
        path = self._written("tables", name, ".parquet")
        write_aside(path, lambda part: table.to_parquet(part, engine="pyarrow"))

    def read_table(self, name: str) -> pd.DataFrame:
        """The table that an earlier stage kept; FileNotFoundError names that stage."""
        path = self._existing("table", name, ".parquet")
        with self._whole(path):
            return pd.read_parquet(path, engine="pyarrow")

    def write_array(self, name: str, array: xr.DataArray | xr.Dataset) -> None:
        """Keep a labelled array (or a data set of several) as netCDF.

        It is not compressed: an archive of the run does so, and better with plain numbers.
        """
        if isinstance(array, xr.DataArray):
            variable = _ARRAY_WITHOUT_NAME if array.name is None else str(array.name)
            data = array.to_dataset(name=variable)
            data.attrs[_ARRAY_ATTRIBUTE] = variable
        else:
            data = array
        path = self._written("arrays", name, ".nc")
        write_aside(path, lambda part: data.to_netcdf(part, engine="netcdf4"))

    def read_array(self, name: str) -> Any:
        """The DataArray or Dataset that an earlier stage kept, loaded into memory."""
        path = self._existing("array", name, ".nc")
        with self._whole(path):
            data = xr.load_dataset(path, engine="netcdf4")
        variable = data.attrs.pop(_ARRAY_ATTRIBUTE, None)
        if variable is None:
            return data
        array = data[variable]
        return array.rename(None) if variable == _ARRAY_WITHOUT_NAME else array

    def write_record(self, name: str, record: Mapping[str, Any] | Any) -> None:
        """Keep a few named numbers or words as JSON, for the book's prose.

        `record` is a mapping, or a dataclass whose fields are the names. NumPy scalars and arrays
        become plain numbers and lists. Raises ValueError for a number that is not finite: prose
        cannot quote it.
        """
        path = self._written("records", name, ".json")
        self._keep_record(path, name, record)

    def _keep_record(self, path: Path, name: str, record) -> None:
        if is_dataclass(record):
            record = asdict(record)
        try:
            text = json.dumps(record, indent=1, default=_plain, allow_nan=False, ensure_ascii=False)
        except ValueError as error:
            raise ValueError(
                f"record {name!r} holds a number that is not finite ({error}); leave it out or "
                "write None where there is nothing to say"
            ) from error
        write_aside(path, lambda part: part.write_text(text + "\n", encoding="utf-8"))

    def read_record(self, name: str) -> dict[str, Any]:
        """The record that an earlier stage kept; FileNotFoundError names that stage."""
        return self._read_json(self._existing("record", name, ".json"))

    def record_model(self, model: Any) -> None:
        """Keep which model the run looks at, for its manifest: name, revision, weights, device.

        Of a model on a host, also which (True: NDIF). And by which engine it may be measured: each
        verdict on it is kept as it is found, and those of an earlier stage stand for the same
        weights. `model` is a ReasoningModel.
        """
        device = str(model.device)
        if device.startswith("cuda"):
            import torch  # only where a model is on a GPU, so that torch is loaded already

            device = torch.cuda.get_device_name(model.device)
        record = {
            "name": model.name,
            "revision": model.revision,
            "weights_sha256": model.weights_sha256,
            "device": device,
            "dtype": str(model.dtype).removeprefix("torch."),
            "layers": model.n_layers,
            "heads": model.n_heads,
        }
        if model.packed is not None:
            record["packed"] = str(model.packed)
        if model.remote:
            record["remote"] = model.remote
        path = self._path("records", "model", ".json")

        def found_before() -> dict[str, Any]:
            before = self._read_json(path) if path.exists() else {}
            verdicts = before.pop("verdicts", {})
            return verdicts if before == record else {}

        def keep(verdicts: dict[str, Any]) -> None:
            # a stage beside this one may have found others
            verdicts = {**found_before(), **verdicts}
            self._keep_record(path, "model", record | {"verdicts": verdicts})

        model.verdicts.kept_by(keep, found_before())

    def write_figure(self, name: str, figure: Any) -> None:
        """Keep a matplotlib figure as PNG, for the pages that stand before the stages."""
        path = self._written("figures", name, ".png")
        write_aside(
            path,
            lambda part: figure.savefig(part, format="png", dpi=150, bbox_inches="tight"),
        )

    def end(self, reason: str) -> NoReturn:
        """End the stage here, because there is nothing more to measure.

        Its page ends with the reason: what is needed, what is there, what to do. Raises StageEnd,
        by which the run knows it from a failure. Stage 05 ends so where no pair is kept.
        """
        raise StageEnd(reason)

    def records(self) -> dict[str, dict[str, Any]]:
        """All records of the run, by name."""
        return {path.stem: self._read_json(path) for path in self._all("records", ".json")}

    def _read_json(self, path: Path) -> dict[str, Any]:
        with self._whole(path):
            return json.loads(path.read_text(encoding="utf-8"))

    @contextmanager
    def _whole(self, path: Path) -> Iterator[None]:
        """Reading inside, of a file that is not what it was, is a RunFolderError."""
        try:
            yield
        except PermissionError:
            raise
        except (ValueError, OSError) as error:
            stages = makers(f"{path.parent.name}/{path.stem}", NOTEBOOKS)
            page = self.folder / "notebooks" / f"{stages[0] if stages else '*'}.ipynb"
            reason = str(error).partition("\n")[0]
            raise RunFolderError(
                f"{path} is damaged ({reason}): delete {page}, and `r2a run --run-id "
                f"{self.folder.name}` makes it anew"
            ) from error

    def _path(self, kind: str, name: str, suffix: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name an artifact: use letters, digits, '_', '-' and '.'"
            )
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / (name + suffix)

    def _all(self, kind: str, suffix: str) -> list[Path]:
        return sorted((self.folder / kind).glob(f"*{suffix}"))

    def _written(self, kind: str, name: str, suffix: str) -> Path:
        self._check(kind, name, "writes")
        return self._path(kind, name, suffix)

    def _check(self, kind: str, name: str, *lists: str) -> None:
        """Hold a stage to its header."""
        if self.header is None or any(f"{kind}/{name}" in getattr(self.header, x) for x in lists):
            return
        raise ValueError(
            f"stage {self.header.stage} uses {kind}/{name}, which the header of its notebook does "
            f"not declare: add it to `{'` or `'.join(lists)}` there"
        )

    def _existing(self, noun: str, name: str, suffix: str) -> Path:
        self._check(noun + "s", name, "reads", "writes")
        path = self._path(noun + "s", name, suffix)
        if path.exists():
            return path
        stages = makers(f"{noun}s/{name}", NOTEBOOKS)
        if stages:
            what_to_do = f"stage {stages[0]} makes it: r2a run --stages {stages[0]}"
        else:
            there = [other.stem for other in self._all(noun + "s", suffix)]
            nearest = difflib.get_close_matches(name, there, n=3) or there
            what_to_do = "no stage makes it" + (
                f"; the run has {', '.join(nearest)}" if nearest else ""
            )
        raise FileNotFoundError(f"{self.folder} has no {noun} {name!r}; {what_to_do}")


def write_aside(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then rename it to `path`; on failure leave nothing.

    The file beside it carries this process's number, so that two processes that write the same
    path each put a whole file in its place.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `.npy`, whole or not at all."""

    def fill(part: Path) -> None:
        with part.open("wb") as stream:  # to a path, numpy would add its suffix
            np.save(stream, array, allow_pickle=False)

    write_aside(path, fill)


def cut_torn_line(path: Path) -> None:
    """Cut off what a killed run left behind the last whole line of a JSON Lines file."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def json_lines(text: str, source: str | Path) -> list[dict]:
    """The objects of a JSON Lines text, one a line; empty lines are passed over.

    Raises ValueError naming `source` and the line where one is no JSON object.
    """
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # too many digits, or too deep
            raise ValueError(f"{source}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{source}, line {number} is no JSON object, but {line[:60]!r}")
        rows.append(row)
    return rows


def kept_lines(path: Path) -> list[dict]:
    """The objects of a JSON Lines file to which a stage adds, one whole line at a time.

    A last line without its end is being written, or was torn by a kill: it is left out. Raises
    ValueError as `json_lines` does.
    """
    text = path.read_text(encoding="utf-8")
    return json_lines(text[: text.rfind("\n") + 1], path)


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as JSON can hold it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a record holds numbers, words, lists and dictionaries, not {type(value)}")
