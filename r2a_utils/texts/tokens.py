"""Tokens: a tokenizer's ids and their texts, with nothing added and nothing lost.

This file knows what sequences begin with and what each token's text is. It knows no segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.templates import in_template


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with nothing added."""
    return tokenizer.encode(text, add_special_tokens=False)


def drop_idle_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Take its BOS from a tokenizer that is told not to write it, and whose template has none.

    Files of models without a BOS name some token in its place, as Qwen's do the end of a text, and
    say `add_bos_token: false` beside it. Put first, such a token is one that the model never saw
    there. Loading a model does so.
    """
    bos, template = tokenizer.bos_token, tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template or ""]
    written = any("bos_token" in text or (bos and bos in text) for text in texts)
    if tokenizer.init_kwargs.get("add_bos_token") is False and not written:
        tokenizer.bos_token = None


def bos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token that a sequence of no text can start with: BOS, or lacking one its template's first.

    A tokenizer that has neither gives the end token; one without any raises ValueError.
    """
    if tokenizer.bos_token_id is not None:
        return tokenizer.bos_token_id
    if tokenizer.chat_template:
        text = in_template(tokenizer, [{"role": "user", "content": "?"}])
        return encode(tokenizer, text)[0]
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no BOS and no EOS token; set tokenizer.bos_token.")
    return tokenizer.eos_token_id


def first_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What stands before a prompt's text: BOS, where the model has one."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def common_prefix(*sequences: Sequence[int]) -> int:
    """How many tokens two or more sequences have in common from their beginnings on."""
    return sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*sequences, strict=False)))


def token_texts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each token; joined, they are the whole text.

    A character that is spread over several byte-level tokens stands with the last of them, and the
    ones before it are empty.
    """
    texts, pending = [], []
    for token_id in ids:
        pending.append(token_id)
        text = tokenizer.decode(
            pending, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        # A character takes at most four bytes, so longer waiting means invalid bytes: show them.
        if text.endswith("\ufffd") and len(pending) < 4:
            texts.append("")
        else:
            texts.append(text)
            pending = []
    if pending:
        texts[-1] = tokenizer.decode(pending, skip_special_tokens=False)
    return texts


def check_bos(
    ids: list[int], tokenizer: PreTrainedTokenizerBase, name: str, prompt_length: int | None
) -> None:
    """Raise ValueError for two BOS in front, one in what is written, or none in a whole text.

    A prompt begins as its template does, which may write none, and a question may name it.
    """
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    if prompt_length is None and (not ids or ids[0] != bos):
        raise ValueError(f"{name} does not start with BOS; put the token {bos} in front.")
    # SmolLM2 opens each turn of a chat with the token that is also its BOS; it stands in the text
    # of the template. R1's templates name bos_token once: a second one is the double-BOS fault.
    opens_turns = tokenizer.bos_token in (tokenizer.chat_template or "")
    rest = [] if opens_turns else ids[2 if prompt_length is None else prompt_length :]
    if bos in (*ids[1:2], *rest):
        raise ValueError(
            f"{name} has two BOS; the template may add one to the tokenizer's. Remove it."
        )
