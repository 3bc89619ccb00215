"""Reasoning models, loaded: known by name, found wherever they are, refused with words that help.

This file finds weights, checks that they fit, that they are whole and that the engines can read
the model, and loads it. It knows nothing of traces and opens no nnsight trace (see hooks.py).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import nnsight
import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r2a_utils.models.gguf import PackedWeights, packed_weights
from r2a_utils.models.hosted import hosted_wrapper, narrowed
from r2a_utils.models.places import architecture
from r2a_utils.models.reasoning_model import ReasoningModel
from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of
from r2a_utils.models.weights import find_weights, quiet
from r2a_utils.texts.tags import Tags, find_tags, read_tags
from r2a_utils.texts.tokens import drop_idle_bos

# float16 is missing on purpose: the R1 distills overflow it and answer with NaN.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}

# What the names of a text model's weights begin with where it stands beside a tower for pictures.
WITHIN = {r"^language_model\.": "", r"^model\.language_model\.": "model."}

# Weights that fill more of a GPU than this leaves go to all GPUs: texts need memory beside them.
ROOM_FOR_TEXTS = 1.5


def load_model(
    name_or_path: str | os.PathLike,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    revision: str | None = None,
    display_name: str = "",
    trust_remote_code: bool = False,
    tags: Tags | Mapping[str, str] | None = None,
    remote: bool | str = False,
) -> ReasoningModel:
    """Load a model by its registered name, by a hub id, from a local folder or from a GGUF file.

    `dtype` is "float32", "bfloat16" or "float64"; "auto" is float32 on a CPU, bfloat16 on a GPU.
    `device` "auto" is the GPU with the most free memory, all GPUs together where the weights would
    leave no room for texts on one, or else the CPU. `revision` is a hub branch, tag or commit; what
    is returned carries the commit. `display_name` is what pages call the model; if none is given,
    its registered name, its hub id or the last part of its path. `trust_remote_code` runs Python
    code that comes with the weights: only for authors whom you trust. GGUF files are named by path
    ("model.gguf"), on the hub ("hf:owner/repository/file.gguf") or as in Ollama's store
    ("ollama:deepseek-r1:1.5b").
    `tags` are the marks around its thoughts, or their texts (`read_tags`); if none are given, those
    of its entry in the registry, or else those that its chat template and its vocabulary name
    (`find_tags`). `remote` leaves the weights on a host: True is nnsight's (NDIF), a URL another
    one; "local" has the weights here and treats what is run as if it went to a host, which is how
    the way there is tested. On a host the plain engine runs: masses, rows, patches, cuts and
    ablations; what needs the weights here (gradients, direct contributions, writing texts) says so.

    Raises ValueError (a name, revision, dtype or device that is not there; a tokenizer that cannot
    write the tags; weights that lack tensors, have them in another shape or hold NaN; a decoder
    that the engines cannot read; a host that does not run it), FileNotFoundError (no weights and no
    network; a folder without a model) and MemoryError (weights larger than the free memory).
    Stage 00 explains.
    """
    name = os.fspath(name_or_path)
    place = _place(device)
    dtype = _dtype(dtype, place)
    source, revision, extra = find_weights(name, revision, trust_remote_code, dtype)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **extra)
        if name in REGISTRY and not tokenizer.chat_template:
            tokenizer.chat_template = REGISTRY[name].template
        drop_idle_bos(tokenizer)
        tags = read_tags(tags) if isinstance(tags, Mapping) else tags or _tags(name, tokenizer)
        _check_tags(name, tokenizer, tags)
        config = AutoConfig.from_pretrained(source, revision=revision, **extra)
        if _is_text_within(config):
            config = config.get_text_config()
            extra |= {"config": config, "key_mapping": WITHIN}
        if remote and remote != "local":
            return _hosted(name, display_name, source, revision, remote, tokenizer, tags, config)
        try:
            hf, report = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                dtype=dtype,
                device_map=_device_map(name, config, dtype, place, spread=str(device) == "auto"),
                attn_implementation=_kernel(config),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **extra,
            )
        except torch.OutOfMemoryError as error:
            raise MemoryError(_too_large(name, str(error))) from error
    _check_whole(name, hf, report)
    shown = display_name or _without_path(name)
    model = _wrap(shown, revision, hf, tokenizer, tags, packed_weights(source), name)
    architecture(model)  # a decoder that the engines cannot read is refused now, not hours later
    if remote:
        nnsight.register("r2a_utils")
        model = replace(model, remote=remote)
    return model


def _hosted(
    name: str,
    display_name: str,
    source: str,
    revision: str | None,
    remote: bool | str,
    tokenizer: PreTrainedTokenizerBase,
    tags: Tags,
    config: PreTrainedConfig,
) -> ReasoningModel:
    if Path(source).is_dir():
        raise ValueError(f"{name} lies on this machine; a host runs models of the hub, by their id")
    lm = hosted_wrapper(source, revision, tokenizer, remote)
    model = ReasoningModel(display_name or name, revision, lm, tokenizer, None, tags, name, remote)
    model = replace(model, stand_in=stand_in(model, config))
    architecture(model)
    return model


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
    configuration. The same seed gives the same weights on the same device. Raises ValueError for a
    registered name without a shape.
    """
    settings = shape_of(architecture) if architecture in REGISTRY else {"model_type": architecture}
    if settings is None:
        raise ValueError(f"the registry has no shape of {architecture}, which a twin would need.")
    settings = {**settings, **shape}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    place = torch.device(device)
    hf = _random_weights(config, seed, _dtype(dtype, place), place)
    return _wrap(f"random {architecture}", None, hf, tokenizer, _tags(architecture, tokenizer))


def untrained_twin(model: ReasoningModel, *, seed: int = 0) -> ReasoningModel:
    """A model of the same shape, family and tokenizer with random weights, on the same device.

    It is what the model was before any training, so that what it shows too is no finding about the
    model. The same seed gives the same weights on the same device. Stages 03 to 04b.
    """
    hf = _random_weights(copy.deepcopy(model.hf.config), seed, model.dtype, model.device)
    return _wrap(f"untrained {model.name}", None, hf, model.tokenizer, model.tags)


def stand_in(model: ReasoningModel, config: PreTrainedConfig) -> ReasoningModel:
    """A narrow model of a configuration's family, with its layers and heads, on the CPU.

    Its weights are random. Places of a model that is on a host are found on it (`places.py`).
    """
    hf = _random_weights(narrowed(config), 0, torch.float32, torch.device("cpu"))
    return _wrap(f"stand-in of {model.name}", None, hf, model.tokenizer, model.tags)


def _random_weights(
    config: PreTrainedConfig, seed: int, dtype: torch.dtype, place: torch.device
) -> PreTrainedModel:
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), place, quiet():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=_kernel(config)
        )


def _wrap(
    name: str,
    revision: str | None,
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tags: Tags,
    packed: PackedWeights | None = None,
    loaded_from: str = "",
) -> ReasoningModel:
    hf.eval().requires_grad_(False)
    lm = nnsight.TransformersModel(hf, tokenizer=tokenizer)
    return ReasoningModel(name, revision, lm, tokenizer, packed, tags, loaded_from)


def _without_path(name: str) -> str:
    """What a model is called where nobody has named it: of a path, its last part."""
    if name.endswith(".gguf"):
        return name.rpartition("/")[2].rpartition(os.sep)[2]
    folder = Path(name).expanduser()
    return folder.resolve().name if name not in REGISTRY and folder.is_dir() else name


def _is_text_within(config: PreTrainedConfig) -> bool:
    """Whether a model reads pictures and has a text model inside, which alone is loaded."""
    known = AutoModelForCausalLM._model_mapping
    return type(config) not in known and type(config.get_text_config()) in known


def _kernel(config: PreTrainedConfig) -> str:
    """The attention that is exact and fused on every device, where the family has it."""
    family = AutoModelForCausalLM._model_mapping.get(type(config), None)
    return "eager" if family is not None and not family._supports_sdpa else "sdpa"


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


def _check_whole(name: str, hf: PreTrainedModel, report: dict) -> None:
    """Raise ValueError where transformers filled in weights at random, left them out, or has NaN.

    It only warns. A tensor beyond those that the model has (a head for several tokens at
    once, a tower for pictures) may be left out; one that belongs to a part of the model may not.
    """
    modules, own = dict(hf.named_modules()), {*hf.state_dict()}
    own |= {buffer for buffer, _ in hf.named_buffers()}  # some are made anew and never stored
    unused = [
        key
        for key in report["unexpected_keys"]
        if key not in own and key.rpartition(".")[0] in modules and "." in key
    ]
    numbers = [
        (key, tensor)
        for key, tensor in hf.named_parameters()
        if tensor.is_floating_point() and tensor.element_size() > 1 and not tensor.is_meta
    ]
    faults = {
        "lack": report["missing_keys"],
        "have in another shape": [
            key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]
        ],
        "hold, and the model of config.json has no place for": unused,
        "hold no numbers (NaN or infinite) in": [
            key for key, tensor in numbers if not torch.stack(tensor.aminmax()).isfinite().all()
        ],
    }
    said = "; ".join(f"{what} {_listed(keys)}" for what, keys in faults.items() if keys)
    if report["missing_keys"] and report["unexpected_keys"]:
        said += f"; they hold instead {_listed(report['unexpected_keys'])}"
    if said or report["error_msgs"]:
        said = "; ".join(filter(None, [said, *report["error_msgs"]]))
        raise ValueError(
            f"the weights of {name} {said}. What lacks would be filled with random numbers: fetch "
            "or save them anew, with the config.json that belongs to them."
        )


def _listed(keys: Iterable[str], most: int = 5) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{', '.join(keys[:most])}{more}"


def _tags(name: str, tokenizer: PreTrainedTokenizerBase) -> Tags:
    """The tags of a model that is registered with its own, or that its tokenizer tells of."""
    if name in REGISTRY and REGISTRY[name].tags is not None:
        return REGISTRY[name].tags
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    return find_tags(template, tokenizer.get_vocab())


def _check_tags(name: str, tokenizer: PreTrainedTokenizerBase, tags: Tags) -> None:
    """A tag may be one token or several, but it must survive the tokenizer."""
    for tag in (tags.open, tags.close):
        ids = tokenizer.encode(tag, add_special_tokens=False)
        if tokenizer.decode(ids, skip_special_tokens=False) != tag:
            raise ValueError(
                f"{name}: its tokenizer cannot write the tag {tag}, so its traces have no "
                f"segments. Add it, tokenizer.add_tokens([{tag!r}]), and save both to a folder."
            )
