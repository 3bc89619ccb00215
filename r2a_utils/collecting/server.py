"""Collect completions from an OpenAI-compatible server: a back end for `collect_completions`.

The prompt goes out as token ids, so that BOS stands there exactly once (vLLM, SGLang and
llama.cpp's server take ids), or as text for a server that takes text only, such as `transformers
serve`; either way the server's own count of the prompt's tokens is held against ours. What comes
back is token ids where the server gives them, as vLLM does; elsewhere text, which is tokenised
again with the model's tokenizer and held against what that makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from transformers import PreTrainedTokenizerBase

from r2a_utils.collecting.endpoint import (
    Endpoint,
    EndpointError,
    concurrently,
    whole_characters,
)
from r2a_utils.collecting.generation import Backend, Prompt, Sampling, Written
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
    prompt_as: str = "ids",
    tags: Tags = R1_TAGS,
    end_ids: Collection[int] = (),
) -> Backend:
    """A back end that asks a server, `concurrency` prompts at a time.

    `tokenizer` is the model's own, and each of `end_ids` ends its texts. `prompt_as` is "ids" or
    "text". Each prompt gets a seed of its own, from its stream, so that samples differ and can be
    drawn again on the same server.

    A thought that is to be closed after so many tokens (`Sampling.close_after`) is asked for as far
    as that, closed here, and written on from there by a second request. A thought that comes in a
    field of its own is put back before the text.

    Raises ValueError, while completing, for a sampling that closes thoughts where prompts are text;
    EndpointError when the server fails, counts another number of prompt tokens (it adds a BOS of
    its own, or serves another model), leaves special tokens out of its text where the tags are
    such, writes a token that it was told never to write, or ends its first replies without closing
    a thought (it keeps the thought to itself). Stage 01 asks servers so.
    """
    if prompt_as not in ("ids", "text"):
        raise ValueError(f'prompt_as is {prompt_as!r}; choose "ids" or "text".')
    end_ids = {tokenizer.eos_token_id, *end_ids} - {None}

    def complete(prompts: list[Prompt], sampling: Sampling) -> Iterator[Written]:
        if not prompts:
            return
        if sampling.close_after is not None and prompt_as == "text":
            raise ValueError("close_after goes on from token ids, and this server takes text only")
        opening, post = "", _posting(endpoint, end_ids)
        if prompt_as == "text":
            opening = _text_opening(endpoint, post, tokenizer, prompts[0])

        def ask(prompt: Prompt, written: list[int], limit: int) -> tuple[list[int], bool]:
            """All that is written so far with up to `limit` more tokens, and whether it ended."""
            sent = [*prompt.ids, *written]
            if prompt_as == "text":
                sent = opening + _text_after_bos(tokenizer, prompt)
            reply = post(_body(sent, prompt, sampling, limit))
            _check_count(endpoint, reply, len(prompt.ids) + len(written))
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


def _posting(endpoint: Endpoint, end_ids: Collection[int]) -> Callable[[dict], dict]:
    """Ask for completions in the words that vLLM and SGLang have beyond the protocol.

    That texts end at any of `end_ids`, that token ids come back, and that special tokens stay in
    the text. A server that refuses one of these words by its name is asked without it from then on:
    what it writes behind an end token is cut off here, and its text is tokenised here.
    """
    wishes = {"return_token_ids": True, "skip_special_tokens": False}
    if end_ids:
        wishes["stop_token_ids"] = sorted(end_ids)

    def post(body: dict) -> dict:
        while True:
            asked = dict(wishes)
            try:
                return endpoint.post("completions", body | asked)
            except EndpointError as error:
                refused = [name for name in asked if name in str(error)]
                if not refused:
                    raise
            for name in refused:
                wishes.pop(name, None)

    return post


def _body(sent: list[int] | str, prompt: Prompt, sampling: Sampling, limit: int) -> dict:
    body = {
        "prompt": sent,
        "max_tokens": limit,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": prompt.stream(sampling.seed).getrandbits(31),
    }
    if sampling.banned_ids:
        body["logit_bias"] = {str(token): NEVER for token in sampling.banned_ids}
    return body


def _check_count(endpoint: Endpoint, reply: dict, sent: int) -> None:
    counted = _prompt_tokens(endpoint, reply)
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
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(token, int) for token in ids):
        spoken = tokenizer.decode(ids, skip_special_tokens=True)
        if not thought and whole_characters(text).strip() not in (
            spoken.strip(),
            tokenizer.decode(ids, skip_special_tokens=False).strip(),
            _without_end(tokenizer, ids),
        ):
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


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of ids but for the last one, which may be an end token that the text leaves out."""
    return tokenizer.decode(ids[:-1], skip_special_tokens=False).strip()


def _check_tags_stay(tokenizer: PreTrainedTokenizerBase, tags: Tags, text: str) -> None:
    """EndpointError where the closing tag is a token that servers leave out of a text, and did."""
    close = tokenizer.decode(encode(tokenizer, tags.close), skip_special_tokens=True)
    if text and tags.close not in close and tags.close not in text:
        raise EndpointError(
            f"{tags.close} is a special token of this tokenizer, and the server leaves those out "
            "of its text: where the reasoning ends would be lost. Take a server that knows "
            "return_token_ids or skip_special_tokens, as vLLM does, or decode locally"
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


def _text_opening(
    endpoint: Endpoint,
    post: Callable[[dict], dict],
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
) -> str:
    """What to put before a prompt's text so that the server sees BOS once: nothing, or BOS.

    Found by asking for one token: whether a server adds BOS is its own affair.
    """
    counts = []
    for opening in ("", tokenizer.decode(prompt.ids[:1])):
        sent = opening + _text_after_bos(tokenizer, prompt)
        body = _body(sent, prompt, Sampling(), 1)
        counts.append(_prompt_tokens(endpoint, post(body)))
        if counts[-1] == len(prompt.ids):
            return opening
    raise EndpointError(
        f"the server makes {counts[0]} tokens of a prompt of {len(prompt.ids)}, and {counts[1]} "
        "with BOS before it: it serves a model with another tokenizer"
    )


def _text_after_bos(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    return tokenizer.decode(prompt.ids[1:], skip_special_tokens=False)


def _prompt_tokens(endpoint: Endpoint, reply: dict) -> int:
    try:
        return reply["usage"]["prompt_tokens"]
    except (KeyError, TypeError) as error:
        raise EndpointError(
            f"the server does not count its tokens (usage): {endpoint.told(reply)}"
        ) from error
