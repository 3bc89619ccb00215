"""Vocabularies made by hand, for what the bundled model's own does not do."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def merging(bos: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes, with the merges of `>` with the line breaks behind it, as Qwen's vocabulary has."""
    return _bytes_with([("Ċ", "Ċ"), (">", "ĊĊ"), (">", "Ċ"), (".", "<")], bos)


def splitting() -> PreTrainedTokenizerFast:
    """Bytes, with the merges that write `<think>` as `<th` and `ink>`, as Magistral-2506 does."""
    return _bytes_with([("t", "h"), ("<", "th"), ("i", "n"), ("in", "k"), ("ink", ">")], "<s>")


def _bytes_with(merges: list[tuple[str, str]], bos: str | None) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|end|>", *([bos] if bos else [])]
    names = [*marks, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="<|end|>")
