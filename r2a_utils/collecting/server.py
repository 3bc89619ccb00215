"""Collect completions from an OpenAI-compatible server: a back end for `collect_completions`.

The prompt goes out as token ids, so that BOS stands there exactly once (vLLM, SGLang and
llama.cpp's server take ids), or as text for a server that takes text only, such as `transformers
serve`; either way the server's own count of the prompt's tokens is held against ours. What comes
back is text; it is tokenised again with the model's tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from r2a_utils.collecting.endpoint import Endpoint, EndpointError, concurrently
from r2a_utils.collecting.generation import Backend, Prompt, Sampling
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import encode

NEVER = -100  # the logit bias that bans a token in this protocol


def server_backend(
    endpoint: Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    concurrency: int = 16,
    prompt_as: str = "ids",
    tags: Tags = R1_TAGS,
) -> Backend:
    """A back end that asks a server, `concurrency` prompts at a time.

    `tokenizer` is the model's own. `prompt_as` is "ids" or "text". Each prompt gets a seed of its
    own, from its stream, so that samples differ and can be drawn again on the same server.

    Raises ValueError where a server would lose the tags from its text, and, while completing,
    EndpointError when the server fails, counts another number of prompt tokens (it adds a BOS of
    its own, or serves another model), or writes a token that it was told never to write.
    """
    if prompt_as not in ("ids", "text"):
        raise ValueError(f'prompt_as is {prompt_as!r}; choose "ids" or "text".')
    for tag in (tags.open, tags.close):
        if tag not in tokenizer.decode(encode(tokenizer, tag), skip_special_tokens=True):
            raise ValueError(
                f"{tag} is a special token of this tokenizer, and servers leave those out of their "
                "text: where the reasoning ends would be lost. Decode locally instead."
            )

    def complete(
        prompts: list[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, list[int], bool]]:
        if not prompts:
            return
        opening = ""
        if prompt_as == "text":
            opening = _text_opening(endpoint, tokenizer, prompts[0])

        def one(prompt: Prompt) -> tuple[list[int], bool]:
            sent = list(prompt.ids)
            if prompt_as == "text":
                sent = opening + _text_after_bos(tokenizer, prompt)
            reply = endpoint.post("completions", _body(sent, prompt, sampling))
            return _read(reply, prompt, tokenizer, sampling)

        for index, (ids, finished) in concurrently(one, prompts, concurrency):
            yield index, ids, finished

    # A file of completions is bound to the name of what wrote them: here, the server's model.
    complete.__name__ = f"server {endpoint.model}"
    return complete


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


def _read(
    reply: dict, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, sampling: Sampling
) -> tuple[list[int], bool]:
    """The token ids of a reply, and whether the model ended it itself."""
    counted = _prompt_tokens(reply)
    if counted != len(prompt.ids):
        raise EndpointError(
            f"the server made {counted} tokens of a prompt of {len(prompt.ids)}: it adds a BOS of "
            "its own, or serves a model with another tokenizer"
        )
    try:
        text, reason = reply["choices"][0]["text"], reply["choices"][0]["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise EndpointError(f"the server's reply holds no completion: {reply}") from error
    ids = encode(tokenizer, text)
    if ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    banned = set(ids) & set(sampling.banned_ids)
    if banned:
        raise EndpointError(
            f"the server wrote {tokenizer.convert_ids_to_tokens(min(banned))!r}, which was banned: "
            "it does not heed logit_bias, so decode this arm locally or on another server"
        )
    return ids, reason == "stop"


def _text_opening(endpoint: Endpoint, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """What to put before a prompt's text so that the server sees BOS once: nothing, or BOS.

    Found by asking for one token: whether a server adds BOS is its own affair.
    """
    counts = []
    for opening in ("", tokenizer.decode(prompt.ids[:1])):
        sent = opening + _text_after_bos(tokenizer, prompt)
        body = _body(sent, prompt, Sampling(max_new_tokens=1))
        counts.append(_prompt_tokens(endpoint.post("completions", body)))
        if counts[-1] == len(prompt.ids):
            return opening
    raise EndpointError(
        f"the server makes {counts[0]} tokens of a prompt of {len(prompt.ids)}, and {counts[1]} "
        "with BOS before it: it serves a model with another tokenizer"
    )


def _text_after_bos(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    return tokenizer.decode(prompt.ids[1:], skip_special_tokens=False)


def _prompt_tokens(reply: dict) -> int:
    try:
        return reply["usage"]["prompt_tokens"]
    except (KeyError, TypeError) as error:
        raise EndpointError(f"the server does not count its tokens (usage): {reply}") from error
