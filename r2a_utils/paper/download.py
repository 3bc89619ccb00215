"""The authors' originals, fetched: pinned to one commit, each file checked by sha256.

Of what the authors published (github microsoft/ACV, folder misc/R2A, MIT licence), `fetch` brings
what is in plain formats and of use here (originals.json lists it, about 50 MB):
- the reasoning traces on MATH-500 of the three distilled models, with and without reasoning, at
  temperature 0.6 (the first trial) and greedy: JSON Lines, read by `paper.load_originals`;
- the contextual-object-comparison question pairs and their selection: CSV, read by
  `paper.load_question_pairs`.

It cannot bring what they published as Python pickles, because reading a pickle runs whatever is in
it: the attention masses of each case, the table of 400 graded traces, the patching case. These
are read from a folder in which somebody has turned them into plain formats (R2A_PAPER_DATA), or
measured anew from the traces. It leaves out the retries of failed cases, R1-Full (its file holds
no whole texts) and the fine-grained patching output (89 MB).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm.auto import tqdm

from r2a_utils.runs.folder import write_aside

_LIST = json.loads(Path(__file__).with_name("originals.json").read_text(encoding="utf-8"))
_FOLDER = f"microsoft/ACV/{_LIST['commit']}/misc/R2A/"
RAW_URL = f"https://raw.githubusercontent.com/{_FOLDER}"
# Files in Git LFS: at RAW_URL stand only their pointers.
LFS_URL = f"https://media.githubusercontent.com/media/{_FOLDER}"


@dataclass(frozen=True)
class Original:
    """One published file: where it lies in the authors' folder, its name here, its checksum."""

    path: str
    name: str
    sha256: str
    lfs: bool


def originals() -> list[Original]:
    """The files that `fetch` brings (originals.json)."""
    return [Original(**file) for file in _LIST["files"]]


def fetch(
    folder: str | Path,
    files: Sequence[Original] | None = None,
    raw_url: str = RAW_URL,
    lfs_url: str = LFS_URL,
) -> list[Path]:
    """Bring the originals, or some of them, into a folder; what lies there whole stays.

    Returns the files' paths. Raises ConnectionError where one cannot be had, and ValueError where
    one is not, byte for byte, what the authors published; nothing unchecked is left in the folder.
    """
    folder, files = Path(folder), originals() if files is None else files
    folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(follow_redirects=True, timeout=60.0) as client:
        for original in tqdm(files, desc="originals", disable=None):
            path = folder / original.name
            if not path.is_file() or _sha256(path) != original.sha256:
                url = (lfs_url if original.lfs else raw_url) + original.path
                _download(client, url, path, original.sha256)
    return [folder / original.name for original in files]


def _download(client: httpx.Client, url: str, path: Path, sha256: str) -> None:
    def fill(part: Path) -> None:
        with client.stream("GET", url) as response, part.open("wb") as file:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                file.write(chunk)
        found = _sha256(part)
        if found != sha256:
            raise ValueError(
                f"{url} is not what the authors published (sha256 {found}, not {sha256}): "
                "nothing was kept"
            )

    try:
        write_aside(path, fill)
    except httpx.HTTPError as error:
        raise ConnectionError(f"{url} cannot be had: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
