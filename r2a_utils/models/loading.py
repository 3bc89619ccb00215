"""Reasoning models: what one is here, which ones are known by name, how they are loaded.

A reasoning model is a causal language model of transformers, wrapped by nnsight, together with a
tokenizer that can write R1's tags. Nothing is keyed on a model's name: layers, heads, grouped heads
and head size are read from the model's own configuration. This file finds weights, checks that they
fit, and loads them. It knows nothing of traces and opens no nnsight trace (see hooks.py).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property

import nnsight
import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r2a_utils.models.gguf import PackedWeights, packed_weights
from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of
from r2a_utils.models.weights import find_weights, quiet
from r2a_utils.texts.tags import R1_TAGS, Tags

# float16 is missing on purpose: the R1 distills overflow it and answer with NaN.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}

# Weights that fill more of a GPU than this leaves go to all GPUs: texts need memory beside them.
ROOM_FOR_TEXTS = 1.5


@dataclass(frozen=True)
class ReasoningModel:
    """A loaded model: `lm` is nnsight's wrapper, which traces; `hf` the plain transformers module.

    Parameters take no gradient; a gradient with respect to activations needs an activation that
    asks for one. `packed` says what the weights were rounded to, where they come from a GGUF file;
    `tags` are the marks that the model writes around its thought.
    """

    name: str
    revision: str | None
    lm: nnsight.TransformersModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    packed: PackedWeights | None = None
    tags: Tags = R1_TAGS

    @property
    def hf(self) -> torch.nn.Module:
        return self.lm._module

    @property
    def n_layers(self) -> int:
        return self.hf.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        return self.hf.config.num_attention_heads

    @property
    def n_kv_heads(self) -> int:
        return getattr(self.hf.config, "num_key_value_heads", None) or self.n_heads

    @property
    def hidden_size(self) -> int:
        return self.hf.config.hidden_size

    @property
    def head_dim(self) -> int:
        return getattr(self.hf.config, "head_dim", None) or self.hidden_size // self.n_heads

    @property
    def vocab_size(self) -> int:
        return self.hf.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where token ids enter; a model spread over several devices has its embedding here."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all parameters, about 1 GB a second."""
        digest = hashlib.sha256()
        for name, tensor in self.hf.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def load_model(
    name_or_path: str | os.PathLike,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ReasoningModel:
    """Load a model by its registered name, by a hub id, from a local folder or from a GGUF file.

    `dtype` is "float32", "bfloat16" or "float64"; "auto" is float32 on a CPU, bfloat16 on a GPU.
    `device` "auto" is the GPU with the most free memory, all GPUs together where the weights would
    leave no room for texts on one, or else the CPU. `revision` is a hub branch, tag or commit; what
    is returned carries the commit. `trust_remote_code` runs Python code that comes with the
    weights: only for authors whom you trust. GGUF files are named by path ("model.gguf"), on the
    hub ("hf:owner/repository/file.gguf") or as in Ollama's store ("ollama:deepseek-r1:1.5b").

    Raises ValueError (a name, revision, dtype or device that is not there; a tokenizer that cannot
    write the tags), FileNotFoundError (no weights and no network; a folder without a model) and
    MemoryError (weights larger than the free memory). Stage 00 explains.
    """
    name = os.fspath(name_or_path)
    place = _place(device)
    dtype = _dtype(dtype, place)
    source, revision, extra = find_weights(name, revision, trust_remote_code, dtype)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **extra)
        _check_tags(name, tokenizer, R1_TAGS)
        config = AutoConfig.from_pretrained(source, revision=revision, **extra)
        try:
            hf = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                dtype=dtype,
                device_map=_device_map(name, config, dtype, place, spread=str(device) == "auto"),
                attn_implementation="sdpa",  # exact and fused on every device
                **extra,
            )
        except torch.OutOfMemoryError as error:
            raise MemoryError(_too_large(name, str(error))) from error
    return _wrap(name, revision, hf, tokenizer, packed_weights(source))


def random_model(
    architecture: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    **shape,
) -> ReasoningModel:
    """A random-weight twin: the exact shapes of a model, for tests and for speed, without weights.

    `architecture` is a registered name (its published shape) or a transformers model type: "llama",
    "qwen2" or "qwen3". `shape` (hidden_size, num_hidden_layers, …) overrides single entries of the
    configuration. The same seed gives the same weights on the same device.
    """
    settings = shape_of(architecture) if architecture in REGISTRY else {"model_type": architecture}
    settings = {**settings, **shape}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    dtype = _dtype(dtype, torch.device(device))
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device), quiet():
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return _wrap(f"random {architecture}", None, hf, tokenizer)


def _wrap(
    name: str,
    revision: str | None,
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    packed: PackedWeights | None = None,
) -> ReasoningModel:
    hf.eval().requires_grad_(False)
    lm = nnsight.TransformersModel(hf, tokenizer=tokenizer)
    return ReasoningModel(name, revision, lm, tokenizer, packed)


def _place(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        return torch.device("cuda", free.index(max(free)))
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"no device {str(device)!r}: torch sees {count} GPUs; pass device='cpu'.")
    return place


def _dtype(dtype: str | torch.dtype, place: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype == "auto":
        dtype = "bfloat16" if place.type == "cuda" else "float32"
    if dtype not in DTYPES:
        reason = " (the R1 distills overflow it)" if dtype == "float16" else ""
        raise ValueError(
            f"dtype {dtype!r} is not offered{reason}; choose from {', '.join(DTYPES)}."
        )
    return DTYPES[dtype]


def _device_map(name: str, config, dtype: torch.dtype, place: torch.device, spread: bool):
    """The `device_map` for from_pretrained; MemoryError when the weights cannot fit."""
    try:
        needed = parameter_count(config.to_dict()) * dtype.itemsize
    except (ValueError, KeyError):  # a family whose size cannot be told from its configuration
        return place
    if place.type == "cuda":
        free = torch.cuda.mem_get_info(place)[0]
        if spread and ROOM_FOR_TEXTS * needed > free and torch.cuda.device_count() > 1:
            place, free = (
                "auto",
                sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())),
            )
    elif place.type == "cpu":
        free = psutil.virtual_memory().available
    else:
        return place
    if needed > free:
        raise MemoryError(
            _too_large(name, f"{needed / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB free")
        )
    return place


def _too_large(name: str, detail: str) -> str:
    return (
        f"{name} does not fit into the memory ({detail}). Take a smaller model, dtype='bfloat16', "
        "device='cpu', or free the GPU's memory; `r2a doctor` lists what each model needs."
    )


def _check_tags(name: str, tokenizer: PreTrainedTokenizerBase, tags: Tags) -> None:
    """A tag may be one token or several, but it must survive the tokenizer."""
    for tag in (tags.open, tags.close):
        ids = tokenizer.encode(tag, add_special_tokens=False)
        if tokenizer.decode(ids, skip_special_tokens=False) != tag:
            raise ValueError(
                f"{name}: its tokenizer cannot write the tag {tag}, so its traces have no "
                f"segments. Add it, tokenizer.add_tokens([{tag!r}]), and save both to a folder."
            )
