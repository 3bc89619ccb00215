"""Why completions are lost: the rule that most of them fail, and what that likely means.

A completion is of use when it has ended by itself and is well formed (`split_completion`). Some are
always lost; when most are, and in the same way, something is set up wrongly. This file knows the
rules and their usual causes. It mends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from r2a_utils.texts.boxed import boxes
from r2a_utils.texts.completions import Completion
from r2a_utils.texts.tags import R1_TAGS, MalformedError, Tags, split_completion

# A rule is told when more than this share of the completions fail it.
MOST = 0.5

LIKELY = {
    "cut": "were cut at {limit} tokens before they came to an answer: raise max_new_tokens. If "
    "that does not help, the model closes its thought with another mark than {close}, or repeats "
    "itself",
    "endless": "have their answer and go on to the limit of {limit} tokens: the end token is never "
    "met. Compare eos_token of the tokenizer with eos_token_id in generation_config.json",
    "no_end": "ended without {close}: the model writes other tags or does not reason, or a server "
    "keeps the thought to itself (a reasoning parser)",
    "several_ends": "hold {close} more than once: the model closes its thought again and again",
    "reopened": "close, with {close}, a thought that the prompt had closed already: the model was "
    'taught another empty thought; try the other word of `without`, or prompt_style="raw"',
    "no_reasoning": "close their thought at once: thinking is switched off, as in the template of "
    "a model that can do both",
    "no_answer": "end with their thought: no answer follows",
}


def loss(completion: Completion, tags: Tags = R1_TAGS) -> str | None:
    """The rule that a completion fails, a word of `LIKELY`; None where it is of use."""
    try:
        _, answer = split_completion(completion.text, completion.condition, tags)
    except MalformedError as error:
        return error.fault if completion.finished else "cut"
    if completion.finished:
        return None
    return "endless" if boxes(answer) else "cut"


def explain_losses(completions: Sequence[Completion], tags: Tags = R1_TAGS) -> str:
    """One sentence on what most completions of a condition fail; empty where most are of use.

    Raises ValueError with that sentence where not one completion with reasoning is of use: nothing
    can be measured on them. Stage 01 asks after each condition.
    """
    lost = Counter(loss(completion, tags) for completion in completions)
    useful, total = lost.pop(None, 0), len(completions)
    if not lost:
        return ""
    [(rule, count)] = lost.most_common(1)
    if count <= MOST * total and useful:
        return ""
    limit = max(completion.n_tokens for completion in completions)
    condition = completions[0].condition
    told = LIKELY[rule].format(limit=limit, close=tags.close)
    sentence = f"{count} of {total} texts {condition.replace('_', ' ')} {told}."
    if useful == 0 and condition == "with_reasoning":
        raise ValueError(f"not one well-formed trace: {sentence}")
    return sentence
