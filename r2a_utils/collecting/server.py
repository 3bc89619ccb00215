"""Collect completions from an OpenAI-compatible server: a back end for `collect_completions`.

The prompt goes out as token ids, so that BOS stands there exactly once (vLLM, SGLang and
llama.cpp's server take ids), or as text for a server that takes text only, such as `transformers
serve`; either way the server's own count of the prompt's tokens is held against ours. What comes
back is text; it is tokenised again with the model's tokenizer.
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
from r2a_utils.collecting.generation import Backend, Prompt, Sampling
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

    Raises ValueError where a server would lose the tags from its text, and, while completing, for a
    sampling that closes thoughts; EndpointError when the server fails, counts another number of
    prompt tokens (it adds a BOS of its own, or serves another model), writes a token that it was
    told never to write, or ends its first replies without closing a thought (it keeps the thought
    to itself). A thought that comes in a field of its own is put back before the text. Stage 01
    asks servers so.
    """
    if prompt_as not in ("ids", "text"):
        raise ValueError(f'prompt_as is {prompt_as!r}; choose "ids" or "text".')
    for tag in (tags.open, tags.close):
        if tag not in tokenizer.decode(encode(tokenizer, tag), skip_special_tokens=True):
            raise ValueError(
                f"{tag} is a special token of this tokenizer, and servers leave those out of their "
                "text: where the reasoning ends would be lost. Decode locally instead."
            )

    end_ids = {tokenizer.eos_token_id, *end_ids} - {None}

    def complete(
        prompts: list[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, list[int], bool]]:
        if not prompts:
            return
        if sampling.close_after is not None:
            raise ValueError("close_after closes thoughts in decoding here, not on a server")
        opening, post = "", _posting(endpoint, end_ids)
        if prompt_as == "text":
            opening = _text_opening(endpoint, post, tokenizer, prompts[0])

        def one(prompt: Prompt) -> tuple[list[int], bool, bool]:
            sent = list(prompt.ids)
            if prompt_as == "text":
                sent = opening + _text_after_bos(tokenizer, prompt)
            reply = post(_body(sent, prompt, sampling))
            _check_count(endpoint, reply, prompt)
            text, finished = _said(endpoint, reply, prompt, tags)
            ids = _checked_ids(text, tokenizer, sampling)
            ended = [place for place, token in enumerate(ids) if token in end_ids]
            if ended:  # the server went on behind a token that ends the model's texts
                ids, finished = ids[: ended[0]], True
                text = tokenizer.decode(ids, skip_special_tokens=False)
            return ids, finished, tags.close in text

        waiting, closes = [], prompts[0].condition == "without_reasoning"
        for index, (ids, finished, closed) in concurrently(one, prompts, concurrency):
            closes = closes or closed
            if finished and not closes:
                waiting.append((index, ids, finished))
                if len(waiting) == ENOUGH_UNCLOSED:
                    raise EndpointError(_unclosed(endpoint, tags))
                continue
            yield from waiting
            waiting = []
            yield index, ids, finished
        yield from waiting

    # A file of completions is bound to the name of what wrote them: here, the server's model.
    complete.__name__ = f"server {endpoint.model}"
    return complete


def _posting(endpoint: Endpoint, end_ids: Collection[int]) -> Callable[[dict], dict]:
    """Ask for completions that end at any of `end_ids`, as vLLM and SGLang can be told.

    A server that refuses to be told is asked without from then on: what it writes behind an end
    token is cut off here.
    """
    told = {"stop_token_ids": sorted(end_ids)} if end_ids else {}

    def post(body: dict) -> dict:
        ends = dict(told)
        try:
            return endpoint.post("completions", body | ends)
        except EndpointError as error:
            if not ends or "stop_token_ids" not in str(error):
                raise
        told.clear()
        return endpoint.post("completions", body)

    return post


def _body(sent: list[int] | str, prompt: Prompt, sampling: Sampling) -> dict:
    body = {
        "prompt": sent,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": prompt.stream(sampling.seed).getrandbits(31),
    }
    if sampling.banned_ids:
        body["logit_bias"] = {str(token): NEVER for token in sampling.banned_ids}
    return body


def _check_count(endpoint: Endpoint, reply: dict, prompt: Prompt) -> None:
    counted = _prompt_tokens(endpoint, reply)
    if counted != len(prompt.ids):
        raise EndpointError(
            f"the server made {counted} tokens of a prompt of {len(prompt.ids)}: it adds a BOS of "
            "its own, or serves a model with another tokenizer"
        )


def _said(endpoint: Endpoint, reply: dict, prompt: Prompt, tags: Tags) -> tuple[str, bool]:
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
    text, thought = parts[0] or "", parts[1] or parts[2] or ""
    if thought and prompt.condition == "with_reasoning" and tags.close not in text:
        text = _rejoined(thought, text, tags)
    return whole_characters(text), choice.get("finish_reason") not in BROKEN_OFF


def _rejoined(thought: str, answer: str, tags: Tags) -> str:
    """A thought and an answer that a server has taken apart; it drops the white space between."""
    if not answer.strip():
        return thought  # broken off within the thought
    before = "" if thought.endswith(tags.before_close) else tags.before_close
    after = "" if answer[0].isspace() else tags.after_close
    return f"{thought}{before}{tags.close}{after}{answer}"


def _checked_ids(text: str, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> list[int]:
    """Token ids of a text; a banned one among them is an error."""
    ids = encode(tokenizer, text)
    banned = set(ids) & set(sampling.banned_ids)
    if banned:
        raise EndpointError(
            f"the server wrote {tokenizer.convert_ids_to_tokens(min(banned))!r}, which was banned: "
            "it does not heed logit_bias, so decode this arm locally or on another server"
        )
    return ids


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
        body = _body(sent, prompt, Sampling(max_new_tokens=1))
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
