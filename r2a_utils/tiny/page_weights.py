"""The bundled model as one script of a page: weights of 12 bits, vocabulary, shape, some problems.

A page that was opened from disk may load a script and may fetch nothing, so that all that the
page's engine (`book/assets/live/`) needs is written as one. A row of a matrix is kept as whole
numbers of 12 bits and one scale; norms and biases stay as they are. What that costs,
`tests/tiny/test_page_engine.py` holds against the model itself. This file runs no model.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from r2a_utils.runs.folder import write_aside
from r2a_utils.texts.trace import CUES
from r2a_utils.tiny.world import held_out_problems

FOLDER = Path(__file__).parent
LARGEST = 2**11 - 1  # of a whole number of 12 bits, either way from 0
N_PROBLEMS = 20  # held out, for a reader to choose from
_SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
)


def write_page_weights(path: str | os.PathLike, folder: Path = FOLDER) -> None:
    """Write the Qwen2 model in `folder` as a script that hands `r2aLive.packed` to the page.

    Raises ValueError for another architecture and for a matrix whose rows have an odd length.
    """
    packed = json.dumps(_packed(folder), ensure_ascii=False, separators=(",", ":"))
    script = f"(globalThis.r2aLive ??= {{}}).packed = {packed};\n"
    write_aside(Path(path), lambda part: part.write_text(script, encoding="utf-8"))


def _packed(folder: Path) -> dict:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "qwen2":
        raise ValueError(f"the page's engine runs qwen2, not {config['model_type']}")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    weights = load_file(folder / "model.safetensors")
    return {
        "shape": {name: config[name] for name in _SHAPE}
        | {"rope_theta": config["rope_parameters"]["rope_theta"]},
        "tokenizer": {
            "vocabulary": sorted(vocabulary, key=vocabulary.get),
            "merges": [" ".join(merge) for merge in tokenizer["model"]["merges"]],
            "whole": [token["content"] for token in tokenizer["added_tokens"]],
            "split": tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"],
        },
        "cues": CUES,
        "problems": [problem.question for problem in held_out_problems(N_PROBLEMS)],
        "tensors": [[name, *tensor.shape] for name, tensor in weights.items()],
        "weights": base64.b64encode(b"".join(map(_bytes, weights.values()))).decode(),
    }


def _bytes(tensor: np.ndarray) -> bytes:
    """A vector as float32; a matrix as the scales of its rows, then its numbers, two in 3 bytes."""
    if tensor.ndim == 1:
        return tensor.astype("<f4").tobytes()
    if tensor.shape[1] % 2:
        raise ValueError(f"rows of {tensor.shape[1]} numbers cannot be packed two by two")
    scale = (np.abs(tensor).max(axis=1, keepdims=True) / LARGEST).astype("<f4")
    whole = np.rint(tensor / np.maximum(scale, np.finfo(np.float32).tiny)).astype(int) + LARGEST
    first, second = whole.reshape(-1, 2).T
    three = np.stack([first & 255, first >> 8 | (second & 15) << 4, second >> 4], axis=1)
    return scale.tobytes() + three.astype(np.uint8).tobytes()
