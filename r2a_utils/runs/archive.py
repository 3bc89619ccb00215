"""A run archive: one file that holds a run, to be shown, checked and gone on with elsewhere.

It is a zip file with the run's pages, records, tables, arrays and figures as they lie in the run
folder, and `archive.json`, which says what is in it, with checksums, and what it was made by. The
same run gives the same bytes. What belongs to the machine that made it is left out: a folder that a
parameter names stands there by its last name, and an archive that would hold another path of the
machine, or a secret, is not written. What is read is held against its checksums and against the
layout of a run folder, and nothing in it is run. The checksums tell damage and an edit by hand, not
who made it. This file knows no book and nothing of what a run measured.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import netCDF4
import pandas as pd
import xarray as xr

from r2a_utils.folders import PACKAGE
from r2a_utils.runs.folder import RunFolderError, write_aside
from r2a_utils.runs.header import all_makers
from r2a_utils.runs.local_paths import shown_folders, without_folders
from r2a_utils.runs.lock import hold
from r2a_utils.runs.manifest import manifest_path, manifest_text, read_manifest, without_hosts
from r2a_utils.runs.parameters import SECRET_VALUE, looks_secret
from r2a_utils.runs.stage import NOTEBOOKS, ROOT

SUFFIX = ".r2a"
FORMAT = 1
CONTENTS = "archive.json"
MOST_BYTES = 2**30  # of all files unpacked; a small file may claim to hold anything
# What lies in a run folder, by folder; texts are packed where they are asked for.
_LAYOUT = {
    "arrays": ".nc",
    "figures": ".png",
    "notebooks": ".ipynb",
    "records": ".json",
    "tables": ".parquet",
}
_TEXTS = {"traces": ".jsonl"}
_PLAIN = ("manifest.json", "parameters.yml")
_MEMBER = re.compile(
    "|".join(
        [re.escape(name) for name in _PLAIN]
        + [
            rf"{kind}/[A-Za-z0-9][A-Za-z0-9_.-]*{re.escape(suffix)}"
            for kind, suffix in {**_LAYOUT, **_TEXTS}.items()
        ]
    )
)
_SHORTEST_SECRET = 8  # a shorter value of the environment may stand in any text
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows
# Letters that say nothing: pictures, and numbers of a view; no token is as long as the latter.
_PICTURES = re.compile(r"\"image/png\": \"[^\"]*\"|base64,[\w/+=%-]*|[\w/+=]{200,}")
_SOMEBODYS_FOLDER = re.compile(
    r"(?<![\w.~<-])(?<!(?<!:/)/)/(?:home|Users|root)/[\w.-]+|\b[A-Za-z]:\\{1,2}Users\\{1,2}[\w.-]+"
)
_SECRETS = (
    SECRET_VALUE,
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    re.compile(r"\w://[^/\s:@\"']+:[^/\s@\"']+@"),  # a URL with a password
)


class ArchiveError(RunFolderError):
    """A run that cannot be packed, or an archive that is refused; the message says why."""


def pack(folder: Path, file: Path, *, traces: bool = False) -> dict[str, Any]:
    """Write the run in `folder` to one file; returns what its `archive.json` says.

    What a stage left that did not complete is not packed, nor are the names of machines. With
    `traces` the texts of stage 01 go with it, so that stages can be run from them elsewhere.
    Raises ArchiveError where no stage has completed, and for a path of this machine or a secret in
    what would be packed; RunFolderError where the run is in use or damaged.
    """
    if not (folder / "manifest.json").exists():
        raise ArchiveError(f"{folder} has no run: r2a run --run-id {folder.name}")
    with hold(folder):
        stages = read_manifest(folder)["stages"]
        done = {name: entry for name, entry in stages.items() if entry["status"] == "completed"}
        if not done:
            raise ArchiveError(
                f"no stage of {folder} has completed: r2a run --run-id {folder.name}"
            )
        folders = _folders(stages)
        packed = {}
        for path in _files(folder, done, _LAYOUT | (_TEXTS if traces else {})):
            name = path.relative_to(folder).as_posix()
            packed[name] = _cleaned(folder, path, folders)
            _refuse_private(name, packed[name], folders)
    contents = {"format": FORMAT, "run_id": folder.name, **_origin(done)}
    contents["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in packed.items()
    }
    contents = without_folders(contents, folders)
    text = json.dumps(contents, indent=1, ensure_ascii=False) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_aside(file, lambda part: _write(part, {CONTENTS: text.encode(), **packed}))
    return contents


def read_archive(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What an archive says of itself, and its files by name, all checked; nothing is run.

    Raises ArchiveError for what is no archive, damaged, edited, of a newer format or holds
    anything that has no place in a run folder.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            members = opened.infolist()
            _check_members(file, members)
            files = {member.filename: opened.read(member) for member in members}
        contents = json.loads(files.pop(CONTENTS))
        listed = {name: entry["sha256"] for name, entry in contents["files"].items()}
        newer = contents["format"] > FORMAT
    except OSError as error:
        raise ArchiveError(f"{file} cannot be read: {error.strerror or error}") from error
    except ArchiveError:
        raise
    # zipfile has no error of its own for what a damaged stream makes of zlib
    except Exception as error:
        raise ArchiveError(
            f"{file} is no run archive or is damaged ({type(error).__name__}: {error}): get it anew"
        ) from error
    if newer:
        raise ArchiveError(
            f"{file} has format {contents['format']}, and this R2A reads up to {FORMAT}: take a "
            "newer one"
        )
    wrong = sorted(listed.keys() ^ files.keys())
    wrong += [n for n in files if listed.get(n, n) != hashlib.sha256(files[n]).hexdigest()]
    if wrong or "manifest.json" not in files:
        raise ArchiveError(
            f"{file} is not as it was packed ({wrong[0] if wrong else 'manifest.json'} differs from"
            " its checksum or is not listed): it was damaged or edited; get it anew"
        )
    return contents, files


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Make the run folder `folder` of an archive; returns what its `archive.json` says.

    Raises ArchiveError where `read_archive` does, and where the folder is there already.
    """
    contents, files = read_archive(file)
    if folder.exists():
        raise ArchiveError(
            f"{folder} is there already: give the run another name with --run-id, or remove it"
        )
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        for name, data in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(data)
        read_manifest(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return contents


def opened(file: Path, place: Path, run_id: str) -> Path:
    """The folder of all runs, below `place`, in which an archive lies unpacked as `run_id`.

    An archive that lies there is not unpacked again. Raises ArchiveError as `unpack` does.
    """
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ArchiveError(f"{file} cannot be read: {error.strerror}") from error
    runs = place / digest[:16]
    if not (runs / run_id).exists():
        unpack(file, runs / run_id)
    return runs


def _files(folder: Path, done: Mapping[str, Any], layout: Mapping[str, str]) -> list[Path]:
    """What of a run folder goes into an archive, sorted: what the stages that are `done` made.

    A stage that was killed or failed may have left something that no page of the run tells of.
    Texts are kept, whoever wrote them: they are what other stages begin with.
    """
    paths, makers = [folder / name for name in _PLAIN], all_makers(NOTEBOOKS)
    for kind, suffix in layout.items():
        for path in (folder / kind).glob(f"*{suffix}"):
            own = [path.stem] if kind == "notebooks" else makers.get(f"{kind}/{path.stem}")
            if kind in _TEXTS or not own or not done.keys().isdisjoint(own):
                paths.append(path)
    return sorted(path for path in paths if path.is_file())


def _origin(stages: Mapping[str, Any]) -> dict[str, Any]:
    """What made the run: commits, models with their digests, machines, hours."""

    def every(name: str) -> list[Any]:
        found: list[Any] = []
        for entry in stages.values():
            if entry.get(name) is not None and entry[name] not in found:
                found.append(entry[name])
        return found

    models = []
    for model in every("model"):
        bare = {name: value for name, value in model.items() if name != "verdicts"}
        models += [bare] if bare not in models else []
    return {
        "stages": list(stages),
        "commits": every("commit"),
        "models": models,
        "machines": every("platform"),
        "hours": round(sum(entry["seconds"] for entry in stages.values()) / 3600, 3),
    }


def _folders(stages: Mapping[str, Any]) -> dict[str, str]:
    """What is put in the place of this machine's folders."""
    own = {str(PACKAGE.parent): ".", str(ROOT): ".", str(Path.home()): "~", sys.prefix: ".venv"}
    folders = {path: name for path, name in own.items() if path != "/"}
    for entry in stages.values():
        folders |= shown_folders(entry.get("inputs", {}).get("parameters", {}))
    return folders


def _cleaned(folder: Path, path: Path, folders: Mapping[str, str]) -> bytes:
    """A file's bytes without the folders of this machine in its text, or in an array's notes.

    The manifest goes without the machines' names.
    """
    data = path.read_bytes()
    if path == manifest_path(folder):
        data = manifest_text(without_hosts(read_manifest(folder))).encode()
    if path.suffix in (".json", ".jsonl", ".ipynb", ".yml"):
        return without_folders(data.decode(), folders).encode()
    if path.suffix == ".nc":
        array = xr.load_dataset(path, engine="netcdf4")
        notes = {name: note for name, note in array.attrs.items() if isinstance(note, str)}
        if without_folders(notes, folders) != notes:
            array.attrs |= without_folders(notes, folders)
            return bytes(array.to_netcdf(engine="netcdf4"))
    return data


def _refuse_private(name: str, data: bytes, folders: Mapping[str, str]) -> None:
    """ArchiveError where a file of the run still names a folder of a machine, or holds a secret."""
    environment = [value for key, value in os.environ.items() if looks_secret(key, None)]
    kept = [value for value in environment if len(value) >= _SHORTEST_SECRET]
    for text in _texts(name, data):
        text = _PICTURES.sub("", text)
        somebodys = _SOMEBODYS_FOLDER.findall(text)
        own = somebodys + [f for f in folders if without_folders(text, {f: ""}) != text]
        if own:
            raise ArchiveError(
                f"{name} names the folder {own[0]} of this machine: give the stage a relative "
                "path, run it again, and pack then"
            )
        if any(secret.search(text) for secret in _SECRETS) or any(value in text for value in kept):
            raise ArchiveError(
                f"{name} holds what looks like a secret (a token, a key or a password): take it "
                "out of what the stage is given or reads, run it again, and pack then"
            )


def _texts(name: str, data: bytes) -> Iterator[str]:
    """All that can be read in a file: of a table and an array their names and words."""
    if name.endswith(".parquet"):
        table = pd.read_parquet(io.BytesIO(data), engine="pyarrow")
        words = table.select_dtypes(exclude="number")
        yield "\n".join([*map(str, table.columns), *map(str, words.to_numpy().ravel())])
    elif name.endswith(".nc"):
        with netCDF4.Dataset(name, memory=data) as file:
            yield "\n".join(str(file.getncattr(note)) for note in file.ncattrs())
            for variable in file.variables.values():
                if variable.dtype is str:
                    yield "\n".join(map(str, variable[:].ravel()))
    elif not name.endswith(".png"):
        yield data.decode()


def _check_members(file: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for name in names:
        if name != CONTENTS and not _MEMBER.fullmatch(name):
            raise ArchiveError(
                f"{file} holds {name!r}, which has no place in a run folder: it was not made by "
                "`r2a pack`; do not use it"
            )
    if len(set(names)) < len(names):
        raise ArchiveError(f"{file} holds a file twice: it was edited; get it anew")
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise ArchiveError(
            f"{file} would unpack to more than {MOST_BYTES // 2**20} MiB, which no run does"
        )


def _write(file: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, _FIXED_TIME)
            member.compress_type = zipfile.ZIP_LZMA
            member.create_system = 3  # the same on every system
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
