"""The families of the table: for each a tiny configuration of transformers, and its parts.

Shapes are unequal, so that no axis passes for another: 48 wide, 6 heads in 2 groups, of 12 where
the family lets one choose (not 48 / 6), 3 layers or one period of the family. Windows are shorter
than the texts, so that they matter. This file knows transformers and nothing of R2A.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

VOCABULARY = 701
"""Tokens of the bundled tokenizer, which all families are given."""

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
HEADS = {"head_dim": 12}
WINDOW = {"head_dim": 12, "sliding_window": 9}
MIXTURE = {"head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
LATENT = {
    "kv_lora_rank": 20,
    "q_lora_rank": 28,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "num_key_value_heads": 6,
}
GATED_DELTA = {
    "head_dim": 12,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 10,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
MAMBA = {
    "mamba_d_head": 8,
    "mamba_n_heads": 12,
    "mamba_d_state": 10,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}


@dataclass(frozen=True)
class Family:
    """A model type of transformers (`kind`, by default the name) with what makes it tiny.

    `layers` and `norm` are the names of its stack and of its last norm; in each layer `attention`,
    `out` and `mlp` are those of the attention, of its output projection and of the MLP. `fused` is
    where a head's queries, keys and values are in an output that they share: in which module, the
    first column, the columns from a head to the next, and how many are its own. Queries that are
    normed are made `sharpness` times as long.
    """

    name: str
    settings: dict = field(default_factory=dict)
    kind: str = ""
    layers: str = "model.layers"
    norm: str = "model.norm"
    attention: str = "self_attn"
    out: str = "o_proj"
    mlp: str = "mlp"
    kv_heads: int = 2
    sharpness: float = 3.0
    fused: dict[str, tuple[str, int, int, int]] = field(default_factory=dict)

    @property
    def config(self) -> PreTrainedConfig:
        return AutoConfig.for_model(self.kind or self.name, **{**SHAPE, **self.settings})


def _blocks(module: str, keys: int, values: int) -> dict[str, tuple[str, int, int, int]]:
    """All queries, then all keys, then all values, 8 columns a head."""
    return {name: (module, at, 8, 8) for name, at in (("q", 0), ("k", keys), ("v", values))}


def _by_head(module: str) -> dict[str, tuple[str, int, int, int]]:
    """Each head's query, key and value, 8 columns each."""
    return {name: (module, at, 24, 8) for name, at in (("q", 0), ("k", 8), ("v", 16))}


GPT = {"layers": "transformer.h", "norm": "transformer.ln_f"}
HIDDEN_GATE = {"q": ("q_proj", 0, 24, 12)}
COMPRESSED = {"q": ("q_b_proj", 0, 16, 16), "v": ("kv_b_proj", 10, 24, 14)}

FAMILIES = [
    # Those of the registered models, and what is built like them.
    Family("llama", HEADS),
    Family("qwen2"),
    Family(
        "qwen2 with windows",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        "qwen2",
    ),
    Family("qwen3", HEADS),
    Family(
        "qwen3 with windows",
        {**HEADS, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        "qwen3",
    ),
    Family("qwen3_moe", {**HEADS, **ROUTED}),
    Family("smollm3", {"no_rope_layer_interval": 2}),
    Family("phi3", fused=_blocks("qkv_proj", 48, 64)),
    Family("mistral", {**HEADS, "sliding_window": None}),
    Family("mistral with windows", WINDOW, "mistral"),
    Family("ministral", WINDOW),
    Family("ministral3", HEADS),
    Family("mixtral", MIXTURE),
    Family("olmo"),
    Family("olmo2"),
    Family("olmo3", {"sliding_window": 9, "num_hidden_layers": 4}),
    Family("glm4", HEADS),
    Family("glm4_moe", {**HEADS, **ROUTED}),
    Family(
        "granite",
        {
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.7,
            "embedding_multiplier": 2.0,
            "logits_scaling": 1.5,
        },
    ),
    Family("seed_oss", HEADS),
    Family("hunyuan_v1_dense", HEADS),
    Family("ernie4_5", HEADS),
    Family("apertus"),
    Family("arcee", HEADS),
    Family("bitnet"),
    Family("helium", {"head_dim": 8}),
    Family("nanochat"),
    Family("starcoder2", {"sliding_window": 9}),
    Family("stablelm"),
    Family("nemotron", HEADS),
    Family("cohere", {"logit_scale": 0.7}),
    Family("cohere2", {**WINDOW, "logit_scale": 0.7}),
    Family("exaone4", {**WINDOW, "sliding_window_pattern": 3}),
    Family("minimax_m2", MIXTURE),
    Family(
        "llama4_text",
        {**MIXTURE, "attention_chunk_size": 9, "intermediate_size_mlp": 56},
        mlp="feed_forward",
    ),
    # Caps on the scores, sinks, differences of attentions.
    Family("gemma", HEADS),
    Family("gemma2", {**WINDOW, "query_pre_attn_scalar": 3, "attn_logit_softcapping": 3.0}),
    Family("gemma3_text", {**WINDOW, "query_pre_attn_scalar": 12, "sliding_window_pattern": 2}),
    Family(
        "gemma4_text",
        {
            **WINDOW,
            "num_hidden_layers": 4,
            "hidden_size_per_layer_input": 10,
            "vocab_size_per_layer_input": VOCABULARY,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        sharpness=0.4,  # its scores are not scaled
    ),
    Family("vaultgemma", {**WINDOW, "query_pre_attn_scalar": 3, "attn_logit_softcapping": 3.0}),
    Family("gpt_oss", {**MIXTURE, **WINDOW}),
    Family(
        "mimo_v2_flash",
        {**WINDOW, **ROUTED, "num_key_value_heads": 1, "v_head_dim": 8, "n_group": 1},
        kv_heads=1,
        fused={"k": ("k_proj", 0, 12, 12), "v": ("v_proj", 0, 8, 8)},
    ),
    Family("diffllama", HEADS),
    # Other names and other ways to project.
    Family(
        "gpt2",
        attention="attn",
        out="c_proj",
        kv_heads=6,
        fused=_blocks("c_attn", 48, 96),
        **GPT,
    ),
    Family(
        "gpt_bigcode",
        attention="attn",
        out="c_proj",
        kv_heads=1,
        fused=_blocks("c_attn", 48, 56),
        **GPT,
    ),
    Family("gptj", {"rotary_dim": 4}, attention="attn", out="out_proj", **GPT),
    Family(
        "falcon",
        {"new_decoder_architecture": True, "num_kv_heads": 2},
        attention="self_attention",
        out="dense",
        **GPT,
    ),
    Family("bloom", attention="self_attention", out="dense", **GPT),
    Family(
        "gpt_neox",
        layers="gpt_neox.layers",
        norm="gpt_neox.final_layer_norm",
        attention="attention",
        out="dense",
        kv_heads=6,
        fused=_by_head("query_key_value"),
    ),
    Family(
        "opt",
        {"ffn_dim": 80, "word_embed_proj_dim": 48},
        layers="model.decoder.layers",
        norm="model.decoder.final_layer_norm",
        out="out_proj",
        mlp="fc2",
        kv_heads=6,
    ),
    Family("phi", norm="model.final_layernorm", out="dense"),
    Family("deepseek_v2", {**LATENT, **ROUTED, "n_group": 1}, kv_heads=6, fused=COMPRESSED),
    Family("deepseek_v3", {**LATENT, **ROUTED}, kv_heads=6, fused=COMPRESSED),
    # Layers with more than attention, or without.
    Family(
        "falcon_h1",
        {**HEADS, **MAMBA, "mamba_d_ssm": 96, "ssm_out_multiplier": 0.02},
        norm="model.final_layernorm",
        mlp="feed_forward",
    ),
    Family(
        "qwen3_next",
        {**GATED_DELTA, **ROUTED, "shared_expert_intermediate_size": 24},
        fused=HIDDEN_GATE,
    ),
    Family("qwen3_5_text", GATED_DELTA, fused=HIDDEN_GATE, sharpness=2.0),
    Family(
        "lfm2",
        {"layer_types": ["conv", "full_attention", "conv"]},
        norm="model.embedding_norm",
        out="out_proj",
        mlp="feed_forward",
    ),
    Family(
        "granitemoehybrid",
        {
            **MAMBA,
            "layer_types": ["mamba", "attention", "mamba"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 40,
        },
        mlp="shared_mlp",
    ),
    Family(
        "nemotron_h",
        {
            **HEADS,
            "num_hidden_layers": 4,
            "hybrid_override_pattern": "M*-*",
            "mamba_num_heads": 12,
            "mamba_head_dim": 8,
            "ssm_state_size": 10,
            "n_groups": 1,
            "chunk_size": 8,
        },
        norm="model.norm_f",
        attention="mixer",
        mlp="mixer",
    ),
    Family(
        "minimax",
        {
            **MIXTURE,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "block_size": 8,
        },
    ),
    Family(
        "kimi_linear",
        {
            **LATENT,
            **ROUTED,
            "q_lora_rank": None,
            "num_local_experts": 4,
            "linear_head_dim": 8,
            "linear_num_heads": 4,
            "num_hidden_layers": 4,
            "n_group": 1,
        },
    ),
    Family("mamba", {"state_size": 10}, layers="backbone.layers", norm="backbone.norm_f"),
]


def plain_model(family: Family) -> PreTrainedModel:
    """The family's model with random weights and eager attention, which is far from uniform.

    Matrices keep the size of what they multiply, times 1.5; no gain, bias or sink is at rest.
    """
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(family.name.encode()))
        model = AutoModelForCausalLM.from_config(
            family.config, dtype=torch.float32, attn_implementation="eager"
        )
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                noise = torch.randn_like(parameter)
                if isinstance(module, torch.nn.Embedding):
                    parameter.data = noise
                elif parameter.ndim > 1 and "conv" not in name and name != "A_log":
                    inputs = parameter.shape[0 if isinstance(module, Conv1D) else -1]
                    parameter.data = 1.5 * noise / inputs**0.5
                elif "Norm" in type(module).__name__ or "bias" in name:
                    parameter.data += 0.3 * noise
                elif name == "sinks":
                    parameter.data = 1 + noise
        for name, module in model.named_modules():
            if name.endswith(("q_norm", "q_layernorm", "query_layernorm")):
                for parameter in module.parameters():
                    parameter.data *= family.sharpness
    return model.eval().requires_grad_(False)
