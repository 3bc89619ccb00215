"""Deltas: the small files in which the organisms are kept, as differences from `r2a-tiny`.

Each changed matrix is kept as int8 with one scale a row, each changed vector as float32; what did
not change is not kept. A delta is expanded once into the user's cache folder, under the digest of
its bytes and of the weights that it changes, and from there it loads like any folder. This file
knows no training and not what the organisms do.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from r2a_utils.models.cached_folders import cached_folder
from r2a_utils.models.registry import BUNDLED, DELTAS, UNTRAINED
from r2a_utils.runs.folder import write_aside

WEIGHTS = "model.safetensors"
_SCALE = ".scale"


def pack_delta(
    base: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What to add to `base` to come to `changed`, to the rounding of int8 with a scale a row.

    Raises ValueError where the two do not have the same tensors.
    """
    if base.keys() != changed.keys():
        raise ValueError("a delta needs two states of one model: their tensors differ in name")
    packed = {}
    for key, before in base.items():
        difference = changed[key].detach().float() - before.float()
        if not difference.any():
            continue
        if difference.ndim < 2:
            packed[key] = difference
            continue
        scale = (difference.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        packed[key] = (difference / scale[:, None]).round().to(torch.int8)
        packed[key + _SCALE] = scale
    return packed


def add_delta(
    base: Mapping[str, torch.Tensor], packed: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The state that a delta makes of `base`; tensors that it does not change are `base`'s own.

    Raises ValueError where the delta changes a tensor that `base` lacks or has in another shape.
    """
    state = dict(base)
    for key, difference in packed.items():
        if key.endswith(_SCALE):
            continue
        if key not in base or base[key].shape != difference.shape:
            raise ValueError(f"the delta belongs to another model: its tensor {key} does not fit")
        if difference.dtype == torch.int8:
            difference = difference.float() * packed[key + _SCALE][:, None]
        state[key] = (base[key].float() + difference).to(base[key].dtype)
    return state


def write_delta(name: str, packed: Mapping[str, torch.Tensor], folder: Path = DELTAS) -> Path:
    """Keep a delta in `folder` under a model's name."""
    path = folder / f"{name}.safetensors"
    folder.mkdir(exist_ok=True)
    write_aside(path, lambda part: save_file(dict(packed), part))
    return path


def state_of(name: str) -> dict[str, torch.Tensor]:
    """The tensors of `r2a-tiny`, or of an organism that is kept as a delta."""
    base = load_file(BUNDLED / WEIGHTS)
    return base if name == "r2a-tiny" else add_delta(base, load_file(_file(name)))


def expanded_delta(name: str) -> Path:
    """The folder with an organism's weights and tokenizer, made if need be.

    It lies in the user's cache (XDG_CACHE_HOME or ~/.cache, r2a/deltas; 10 MB each). Raises
    FileNotFoundError where the organism has not been trained.
    """
    digest = hashlib.sha256()
    for path in (BUNDLED / WEIGHTS, _file(name)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())

    def make(part: Path) -> None:
        _copy_all_but_weights(part)
        save_file(state_of(name), part / WEIGHTS, metadata={"format": "pt"})

    return cached_folder("deltas", f"{name}-{digest.hexdigest()[:16]}", make)


def untrained_folder() -> Path:
    """A folder with the shape and tokenizer of `r2a-tiny` and random weights, made if need be."""

    def make(part: Path) -> None:
        _copy_all_but_weights(part)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(part)).state_dict()
        save_file(state, part / WEIGHTS, metadata={"format": "pt"})

    digest = hashlib.sha256((BUNDLED / "config.json").read_bytes()).hexdigest()
    return cached_folder("deltas", f"{UNTRAINED}-{digest[:16]}", make)


def _copy_all_but_weights(folder: Path) -> None:
    for pattern in ("*config.json", "tokenizer.json", "*.jinja"):
        for path in BUNDLED.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def _file(name: str) -> Path:
    path = DELTAS / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: `python -m r2a_utils.training.organisms {name}` trains it, or "
            "clone anew."
        )
    return path
