"""One run folder: what the stages leave there and what they read from each other.

A run is a folder, and the stages know each other only through it::

    runs/<run id>/
      parameters.yml   the parameters that were asked for
      manifest.json    for each stage: inputs, parameters, versions, model, device, duration
      traces/          completions, one JSON Lines file a condition
      arrays/          labelled arrays, netCDF
      tables/          tables, Parquet
      records/         small numbers, JSON; the book's prose quotes them
      figures/         figures that the book's home page shows, PNG
      notebooks/       the executed notebooks

This file knows the layout and the formats. It does not know what the numbers mean, runs nothing,
and never pickles. Whatever it writes is written beside its place and renamed, so that a killed
stage leaves no half-written file behind.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# A DataArray is stored as a data set of one variable; this attribute says which one, so that
# reading gives back what was written: a DataArray or a Dataset.
_ARRAY_ATTRIBUTE = "r2a_data_array"
_ARRAY_WITHOUT_NAME = "values"


@dataclass(frozen=True)
class Run:
    """One run's folder. All paths that a stage needs come from here."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in `folder`, which is made if it does not exist.

        A relative folder counts from the working directory: stages run from the repository's root.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def completions_path(self, condition: str) -> Path:
        """The JSON Lines file that holds the completions of one condition."""
        return self._path("traces", condition, ".jsonl")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table as Parquet; column names must be strings."""
        path = self._path("tables", name, ".parquet")
        write_aside(path, lambda part: table.to_parquet(part, engine="pyarrow"))

    def read_table(self, name: str) -> pd.DataFrame:
        """The table that an earlier stage kept; FileNotFoundError names that stage."""
        return pd.read_parquet(self._existing("table", name, ".parquet"), engine="pyarrow")

    def write_array(self, name: str, array: xr.DataArray | xr.Dataset) -> None:
        """Keep a labelled array (or a data set of several) as netCDF."""
        if isinstance(array, xr.DataArray):
            variable = _ARRAY_WITHOUT_NAME if array.name is None else str(array.name)
            data = array.to_dataset(name=variable)
            data.attrs[_ARRAY_ATTRIBUTE] = variable
        else:
            data = array
        path = self._path("arrays", name, ".nc")
        write_aside(path, lambda part: data.to_netcdf(part, engine="netcdf4"))

    def read_array(self, name: str) -> Any:
        """The DataArray or Dataset that an earlier stage kept, loaded into memory."""
        path = self._existing("array", name, ".nc")
        data = xr.load_dataset(path, engine="netcdf4")
        variable = data.attrs.pop(_ARRAY_ATTRIBUTE, None)
        if variable is None:
            return data
        array = data[variable]
        return array.rename(None) if variable == _ARRAY_WITHOUT_NAME else array

    def write_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a few named numbers or words as JSON, for the book's prose.

        NumPy scalars and arrays become plain numbers and lists. Raises ValueError for a number
        that is not finite: prose cannot quote it.
        """
        try:
            text = json.dumps(record, indent=1, default=_plain, allow_nan=False, ensure_ascii=False)
        except ValueError as error:
            raise ValueError(
                f"record {name!r} holds a number that is not finite ({error}); leave it out or "
                "write None where there is nothing to say"
            ) from error
        path = self._path("records", name, ".json")
        write_aside(path, lambda part: part.write_text(text + "\n", encoding="utf-8"))

    def read_record(self, name: str) -> dict[str, Any]:
        """The record that an earlier stage kept; FileNotFoundError names that stage."""
        path = self._existing("record", name, ".json")
        return json.loads(path.read_text(encoding="utf-8"))

    def record_model(self, model: Any) -> None:
        """Keep which model the run looks at, for its manifest: name, revision, weights, device.

        `model` is a ReasoningModel.
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
        self.write_record("model", record)

    def write_figure(self, name: str, figure: Any) -> None:
        """Keep a matplotlib figure as PNG, for the pages that stand before the stages."""
        path = self._path("figures", name, ".png")
        write_aside(
            path,
            lambda part: figure.savefig(part, format="png", dpi=150, bbox_inches="tight"),
        )

    def records(self) -> dict[str, dict[str, Any]]:
        """All records of the run, by name."""
        return {path.stem: self.read_record(path.stem) for path in self._all("records", ".json")}

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

    def _existing(self, noun: str, name: str, suffix: str) -> Path:
        path = self._path(noun + "s", name, suffix)
        if path.exists():
            return path
        stages = makers(noun, name, NOTEBOOKS)
        if stages:
            what_to_do = f"stage {stages[0]} makes it: r2a run --stages {stages[0]}"
        else:
            there = [other.stem for other in self._all(noun + "s", suffix)]
            nearest = difflib.get_close_matches(name, there, n=3) or there
            what_to_do = "no stage makes it" + (
                f"; the run has {', '.join(nearest)}" if nearest else ""
            )
        raise FileNotFoundError(f"{self.folder} has no {noun} {name!r}; {what_to_do}")


def makers(noun: str, name: str, notebooks: Path) -> list[str]:
    """The stages whose notebook writes the artifact `name`; noun is table, array or record."""
    call = re.compile(rf"\.write_{noun}\(\s*[\"']{re.escape(name)}[\"']")
    return [
        path.stem
        for path in sorted(notebooks.glob("*.py"))
        if call.search(path.read_text(encoding="utf-8"))
    ]


def write_aside(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill `<path>.part`, then rename it to `path`; on failure leave nothing."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def cut_torn_line(path: Path) -> None:
    """Cut off what a killed run left behind the last whole line of a JSON Lines file."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as JSON can hold it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a record holds numbers, words, lists and dictionaries, not {type(value)}")
