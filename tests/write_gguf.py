"""GGUF files of small models, packed as llama.cpp's converter packs them."""

from __future__ import annotations

import json

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

SHAPES = {"F32": GGMLQuantizationType.F32, "Q8_0": GGMLQuantizationType.Q8_0}
FILE_TYPES = {"F32": LlamaFileType.ALL_F32, "Q8_0": LlamaFileType.MOSTLY_Q8_0}


def write_vocabulary(
    writer: gguf.GGUFWriter,
    tokenizer,
    size: int,
    split: str | None,
    adds_bos: bool | None = False,
    template: str | None = None,
) -> None:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token for token in backend["added_tokens"]}
    texts = tokenizer.convert_ids_to_tokens(range(size))
    kinds = [1 if i not in added else 3 if added[i]["special"] else 4 for i in range(len(texts))]
    writer.add_tokenizer_model("gpt2")
    if split is not None:
        writer.add_tokenizer_pre(split)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if adds_bos is not None:
        writer.add_add_bos_token(adds_bos)
    writer.add_chat_template(template or tokenizer.chat_template)


def write(
    path, model, packing: str = "F32", split: str | None = "qwen2", lose: str = "none", **entries
) -> None:
    """Pack a Qwen2 model as llama.cpp's converter does; `lose` is a tensor to leave out."""
    config, writer = model.hf.config, gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(FILE_TYPES[packing])
    if "turn_end" in entries:
        writer.add_eot_token_id(entries.pop("turn_end"))
    write_vocabulary(writer, model.tokenizer, config.vocab_size, split, **entries)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for key, tensor in model.hf.state_dict().items():
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name == lose or (key == "lm_head.weight" and config.tie_word_embeddings):
            continue
        kind = SHAPES[packing] if tensor.ndim == 2 else GGMLQuantizationType.F32
        data = gguf.quants.quantize(tensor.numpy().astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
