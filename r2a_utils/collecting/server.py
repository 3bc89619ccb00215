"""Collect completions from an OpenAI-compatible server: a back end for `collect_completions`.

The prompt goes out as token ids, so that BOS stands there exactly once (vLLM, SGLang and
llama.cpp's server take ids), or as text where a server takes text only, such as `transformers
serve`; either way the server's own count of the prompt's tokens is held against ours. What comes
back is token ids where the server gives them, as those three do; elsewhere text, which is tokenised
again with the model's tokenizer and held against what that makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from transformers import PreTrainedTokenizerBase

from r2a_utils.collecting.decoding import Backend, Prompt, Sampling, Written
from r2a_utils.collecting.dialect import Dialect, prompt_tokens
from r2a_utils.collecting.endpoint import (
    Endpoint,
    EndpointError,
    concurrently,
    whole_characters,
)
from r2a_utils.collecting.open_thought import begins_to_close, closing_ids
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import encode

NEVER = -100  # the logit bias that bans a token in this protocol
# Reasons to stop that break a text off; by any other word a server says that the text has ended.
BROKEN_OFF = frozenset({"length", "max_tokens", "content_filter", "abort", "cancelled", "error"})
# Where a server puts the thought that it has taken out of the text.
THOUGHTS = ("reasoning_content", "reasoning")
# So many replies that ended, none with a closed thought, are no chance.
ENOUGH_UNCLOSED = 4


def server_backend(
    endpoint: Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    concurrency: int = 16,
    tags: Tags = R1_TAGS,
    end_ids: Collection[int] = (),
) -> Backend:
    """A back end that asks a server, `concurrency` prompts at a time.

    `tokenizer` is the model's own, and each of `end_ids` ends its texts. Each prompt gets a seed of
    its own, from its stream, so that samples differ and can be drawn again on the same server.

    A thought that is to be closed after so many tokens (`Sampling.close_after`) is asked for as far
    as that, closed here, and written on from there by a second request. A thought that comes in a
    field of its own is put back before the text.

    Raises ValueError, while completing, for a sampling that closes thoughts on a server that takes
    text alone; EndpointError when the server fails, counts another number of prompt tokens (it adds
    a BOS of its own, or serves another model), leaves special tokens out of its text where the tags
    are such, writes a token that it was told never to write, or ends its first replies without
    closing a thought (it keeps the thought to itself). Stage 01 asks servers so.
    """
    end_ids = {tokenizer.eos_token_id, *end_ids} - {None}
    dialect = Dialect(endpoint, tokenizer)

    def complete(prompts: list[Prompt], sampling: Sampling) -> Iterator[Written]:
        if not prompts:
            return
        dialect.learn(prompts[0].ids, _wished(sampling, end_ids))
        if sampling.close_after is not None and not dialect.takes_ids:
            raise ValueError("close_after goes on from token ids, and this server takes text only")

        def ask(prompt: Prompt, written: list[int], limit: int) -> tuple[list[int], bool]:
            """All that is written so far with up to `limit` more tokens, and whether it ended."""
            sent = [*prompt.ids, *written]
            needed = _needed(dialect.prompt(sent), prompt, sampling, limit)
            reply = dialect.post(needed, _wished(sampling, end_ids))
            _check_count(endpoint, reply, len(sent))
            ids, finished = _said(endpoint, reply, prompt, tags, tokenizer)
            _check_banned(ids, tokenizer, sampling)
            ended = [place for place, token in enumerate(ids) if token in end_ids]
            if ended:  # the server went on behind a token that ends the model's texts
                ids, finished = ids[: ended[0]], True
            return [*written, *ids], finished

        def one(prompt: Prompt) -> tuple[list[int], bool, bool, bool]:
            most, ours, finished = sampling.max_new_tokens, False, False
            ids: list[int] = []
            if sampling.close_after is not None and prompt.condition == "with_reasoning":
                ids, finished = ask(prompt, ids, sampling.close_after)
                while not finished and begins_to_close(tokenizer.decode(ids), tags):
                    ids, finished = ask(prompt, ids, 1)
                if tags.close not in tokenizer.decode(ids):
                    ids = [*ids, *closing_ids(tokenizer, tags, tokenizer.decode(ids))]
                    ours, finished = True, False
            if not finished and len(ids) < most:
                ids, finished = ask(prompt, ids, most - len(ids))
            closed = tags.close in tokenizer.decode(ids, skip_special_tokens=False)
            return ids, finished, ours, closed

        waiting, closes = [], prompts[0].condition == "without_reasoning"
        for index, (ids, finished, ours, closed) in concurrently(one, prompts, concurrency):
            closes = closes or closed
            if finished and not closes:
                waiting.append(Written(index, ids, finished))
                if len(waiting) == ENOUGH_UNCLOSED:
                    raise EndpointError(_unclosed(endpoint, tags))
                continue
            yield from waiting
            waiting = []
            yield Written(index, ids, finished, ours)
        yield from waiting

    # A file of completions is bound to the name of what wrote them: here, the server's model.
    complete.__name__ = f"server {endpoint.model}"
    return complete


def _needed(sent: list[int] | str, prompt: Prompt, sampling: Sampling, limit: int) -> dict:
    """What a text depends on; a server that refuses a word of this cannot write it."""
    body = {
        "prompt": sent,
        "max_tokens": limit,
        "temperature": sampling.temperature,
        "seed": prompt.stream(sampling.seed).getrandbits(31),
    }
    if sampling.temperature > 0 and sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.banned_ids:
        body["logit_bias"] = {str(token): NEVER for token in sampling.banned_ids}
    return body


def _wished(sampling: Sampling, end_ids: Collection[int]) -> dict:
    """What servers have beyond the protocol, and what keeps their own habits out of a text.

    Token ids come back (`return_token_ids` in vLLM and SGLang, `return_tokens` and `verbose` in
    llama.cpp), or special tokens stay in the text, and any of `end_ids` ends it. All tokens can be
    drawn: llama.cpp has a `top_k` of 40, a `min_p` and a `top_p` of its own, and vLLM,
    SGLang and `transformers serve` take theirs and a penalty for repetition from the model's
    `generation_config.json`. The last of them draws only where such a file says so.
    """
    ends = sorted(end_ids)
    own = {"do_sample": sampling.temperature > 0, "top_k": 0, "eos_token_id": ends or None}
    wished = {
        "return_token_ids": True,
        "return_tokens": True,
        "verbose": True,
        "skip_special_tokens": False,
        "repetition_penalty": 1.0,
        "generation_config": json.dumps(own),
    }
    if ends:
        wished["stop_token_ids"] = ends
    if sampling.temperature > 0:
        wished |= {"top_k": -1, "min_p": 0.0}
        if sampling.top_p == 1:
            wished["top_p"] = 1.0
    return wished


def _check_count(endpoint: Endpoint, reply: dict, sent: int) -> None:
    counted = prompt_tokens(endpoint, reply)
    if counted != sent:
        raise EndpointError(
            f"the server made {counted} tokens of a prompt of {sent}: it adds a BOS of its own, or "
            "serves a model with another tokenizer"
        )


def _said(
    endpoint: Endpoint,
    reply: dict,
    prompt: Prompt,
    tags: Tags,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[int], bool]:
    """What the model wrote, its thought included, and whether it ended it itself."""
    try:
        choice = reply["choices"][0]
        parts = [choice.get("text"), *(choice.get(name) for name in THOUGHTS)]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise EndpointError(
            f"the server's reply holds no completion: {endpoint.told(reply)}"
        ) from error
    if "text" not in choice or not all(isinstance(part, str | None) for part in parts):
        raise EndpointError(f"the server's reply holds no text: {endpoint.told(reply)}")
    finished = choice.get("finish_reason") not in BROKEN_OFF
    text, thought = parts[0] or "", parts[1] or parts[2] or ""
    ids = _token_ids(reply)
    if isinstance(ids, list) and all(isinstance(token, int) for token in ids):
        said = (
            tokenizer.decode(ids, skip_special_tokens=True),
            tokenizer.decode(ids, skip_special_tokens=False),
            tokenizer.decode(ids[:-1], skip_special_tokens=False),  # without the end token
        )
        if not thought and _readable(text) not in map(_readable, said):
            raise EndpointError(
                "the server's token ids and its text differ: it serves a model with another "
                "tokenizer than the one given here"
            )
        return ids, finished
    if thought and prompt.condition == "with_reasoning" and tags.close not in text:
        text = _rejoined(thought, text, tags)
    if finished and prompt.condition == "with_reasoning":
        _check_tags_stay(tokenizer, tags, text)
    text = whole_characters(text)
    ids = encode(tokenizer, text)
    if tokenizer.decode(ids, skip_special_tokens=False).strip() != text.strip():
        raise EndpointError(
            "the tokenizer given here cannot write what the server wrote, from "
            f"{endpoint.told(text)!r}: take the served model's own"
        )
    return ids, finished


def _token_ids(reply: dict) -> object:
    """The token ids of a reply, where vLLM and SGLang or where llama.cpp has them, or None."""
    verbose = reply.get("__verbose")
    told = verbose.get("tokens") if isinstance(verbose, dict) else None
    return reply["choices"][0].get("token_ids", told)


def _readable(text: str) -> str:
    """A text without what stands for bytes that are no character: one mark for each, or for many.

    A server that decodes as it writes, as vLLM does, counts them in another way.
    """
    return whole_characters(text).replace("\ufffd", "").strip()


def _check_tags_stay(tokenizer: PreTrainedTokenizerBase, tags: Tags, text: str) -> None:
    """EndpointError where the closing tag is a token that servers leave out of a text, and did."""
    close = tokenizer.decode(encode(tokenizer, tags.close), skip_special_tokens=True)
    if text and tags.close not in close and tags.close not in text:
        raise EndpointError(
            f"{tags.close} is a special token of this tokenizer, and the server leaves those out "
            "of its text: where the reasoning ends would be lost. Take a server that knows "
            "return_token_ids, as vLLM and SGLang do, or llama.cpp's, or decode locally"
        )


def _rejoined(thought: str, answer: str, tags: Tags) -> str:
    """A thought and an answer that a server has taken apart; it drops the white space between."""
    if not answer.strip():
        return thought  # broken off within the thought
    before = "" if thought.endswith(tags.before_close) else tags.before_close
    after = "" if answer[0].isspace() else tags.after_close
    return f"{thought}{before}{tags.close}{after}{answer}"


def _check_banned(ids: list[int], tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> None:
    banned = set(ids) & set(sampling.banned_ids)
    if banned:
        raise EndpointError(
            f"the server wrote {tokenizer.convert_ids_to_tokens(min(banned))!r}, which was banned: "
            "it does not heed logit_bias, so decode this arm locally or on another server"
        )


def _unclosed(endpoint: Endpoint, tags: Tags) -> str:
    return (
        f"the first {ENOUGH_UNCLOSED} texts that {endpoint.model} ended hold no {tags.close}: the "
        "server keeps the thought to itself (start vLLM and SGLang without a reasoning parser, "
        "llama.cpp with --reasoning-format none), or the model writes other tags or none; nothing "
        "of this was kept"
    )
