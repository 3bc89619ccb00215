"""The manifest of a run: for each stage what it was made from, how it went, and what of it is old.

`manifest.json` is written by the process that holds the run's lock (`lock.py`) and by no other, so
that reading, changing and writing it are one step. This file runs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2a_utils.runs.folder import RunFolderError, write_aside

HOST = "host"
"""The entry of a stage that names the machine it ran on: for one's own eyes, in no archive."""


def manifest_path(folder: Path) -> Path:
    """Where a run's manifest lies."""
    return folder / "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a run's stages were made from and how they went; an empty one for a new run.

    Raises RunFolderError where it is damaged.
    """
    path = manifest_path(folder)
    if not path.exists():
        return {"run_id": folder.name, "stages": {}}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(entry["status"], str) for entry in manifest["stages"].values()):
            raise ValueError("a status is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}): delete it, and `r2a run` makes the stages anew from the "
            "traces that are there"
        ) from error
    return manifest


def write_entry(folder: Path, stage: str, entry: Mapping[str, Any]) -> None:
    """Put one stage's entry in its place; only the holder of the run's lock may."""
    manifest = read_manifest(folder)
    manifest["stages"] = dict(sorted({**manifest["stages"], stage: dict(entry)}.items()))
    text = manifest_text(manifest)
    write_aside(manifest_path(folder), lambda part: part.write_text(text, encoding="utf-8"))


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as its file holds it."""
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def without_hosts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest that names no machine."""
    stages = {
        name: {key: value for key, value in entry.items() if key != HOST}
        for name, entry in manifest["stages"].items()
    }
    return {**manifest, "stages": stages}


def stale_stages(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The stages of a run whose result should not be shown, each with the reason."""
    reasons = {}
    for name, entry in manifest["stages"].items():
        if entry["status"] != "completed":
            reasons[name] = "it has not completed"
        for needed, chain in entry.get("inputs", {}).get("stages", {}).items():
            if manifest["stages"].get(needed, {}).get("chain") != chain:
                reasons[name] = f"{needed} has been run anew since"
    return reasons


def is_current(entry: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether a stage's entry is of a result made from just these inputs."""
    return entry.get("status") == "completed" and entry.get("inputs") == inputs


def chain(inputs: Mapping[str, Any]) -> str:
    """One hash of a stage's inputs, for the stages that read what it makes."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
