"""The tokenizer of `r2a-tiny`: byte-level BPE with R1's special tokens, tags and shape of template.

Any text encodes. A digit is always one token, and each object of the world is one token both in a
sentence and alone in a box.
"""

from __future__ import annotations

import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r2a_utils.texts.tags import R1_TAGS

VOCABULARY_SIZE = 768
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
WHOLE_TOKENS = (EOS, BOS, USER, ASSISTANT, R1_TAGS.open, R1_TAGS.close)

# Qwen2's pattern, except that only a space may lead a word: "{lamp}" keeps the object's token.
PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# R1's template for user and assistant turns: thoughts of earlier turns are dropped, and a reply
# starts inside `<think>`.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train the tokenizer on texts that hold no special token; deterministic for the same texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(WHOLE_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # As in R1, only BOS and EOS are special: what a server or `decode` leaves out of a text.
    stored = json.loads(tokenizer.to_str())
    for token in stored["added_tokens"]:
        token["special"] = token["content"] in (BOS, EOS)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(stored)),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
