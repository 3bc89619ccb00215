"""What a server understands: words beyond the protocol, its model's name, prompts as token ids.

OpenAI-compatible servers differ in what they take. A refusal says what a server does not take; it
is asked without that from then on. This file knows requests. It knows nothing of what comes back,
but for counts and ids of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from r2a_utils.collecting.endpoint import Endpoint, EndpointError, RefusalError
from r2a_utils.collecting.streams import ASKED


class Dialect:
    """What one server understands, learnt by asking it for one token, once."""

    def __init__(self, endpoint: Endpoint, tokenizer: PreTrainedTokenizerBase) -> None:
        self.endpoint, self._tokenizer = endpoint, tokenizer
        self.takes_ids, self._opening = True, ""
        self._refused: set[str] = set()
        self._streams = self._learnt = False

    def learn(self, ids: Sequence[int], wished: dict) -> None:
        """Find out by a prompt of token ids under which name and in which form prompts are taken.

        Of the words in `wished` some may be refused. Texts are streamed where the server sends
        their token ids as it writes, so that nothing is lost by it.

        A server that knows no model of our name and serves one alone is asked for that one. One
        that takes no token ids is sent text, with BOS before it where the server adds none. Raises
        EndpointError for a server that takes neither, or that counts other tokens in the text.
        """
        if self._learnt:
            return
        refusal = self._refusal(ids)
        if refusal and "prompt" not in str(refusal):
            self._take_served_name(refusal)
            refusal = self._refusal(ids)
        if refusal and "prompt" not in str(refusal):
            raise refusal
        if refusal:
            self.takes_ids = False
            self._opening = self._find_opening(ids)
        self._streams = _tells_ids(self._ask_for_one(self.prompt(ids), wished | ASKED))
        self._learnt = True

    def prompt(self, ids: Sequence[int]) -> list[int] | str:
        """A prompt of token ids as it is sent to this server."""
        return list(ids) if self.takes_ids else self._opening + self._text_after_bos(ids)

    def post(self, needed: dict, wished: dict) -> dict:
        """Ask for a completion in `needed` words, and in those of `wished` that the server takes.

        Raises EndpointError as `Endpoint.post` does.
        """
        if self._streams:
            wished = wished | ASKED
        while True:
            asked = {name: wished[name] for name in wished.keys() - self._refused}
            try:
                return self.endpoint.post("completions", needed | asked)
            except RefusalError as refusal:
                named = {name for name in asked if name in str(refusal)}
                if not named:
                    raise
                self._refused |= named

    def _refusal(self, ids: Sequence[int]) -> RefusalError | None:
        try:
            self._ask_for_one(list(ids), {})
        except RefusalError as refusal:
            return refusal
        return None

    def _ask_for_one(self, sent: list[int] | str, wished: dict) -> dict:
        return self.post({"prompt": sent, "max_tokens": 1, "temperature": 0.0}, wished)

    def _take_served_name(self, refusal: RefusalError) -> None:
        names = self.endpoint.models()
        if not names or self.endpoint.model in names:
            raise refusal
        if len(names) > 1:
            raise RefusalError(f"{refusal}; it serves {', '.join(names[:8])}") from refusal
        self.endpoint = replace(self.endpoint, model=names[0])

    def _find_opening(self, ids: Sequence[int]) -> str:
        """What to put before a prompt's text so that the server sees BOS once: nothing, or BOS.

        Whether a server adds BOS is its own affair.
        """
        counts = []
        for opening in ("", self._tokenizer.decode(ids[:1])):
            reply = self._ask_for_one(opening + self._text_after_bos(ids), {})
            counts.append(prompt_tokens(self.endpoint, reply))
            if counts[-1] == len(ids):
                return opening
        raise EndpointError(
            f"the server makes {counts[0]} tokens of the text of a prompt of {len(ids)}, and "
            f"{counts[1]} with BOS before it: it serves a model with another tokenizer, or puts a "
            "template of its own around it, as Ollama does"
        )

    def _text_after_bos(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids[1:], skip_special_tokens=False)


def _tells_ids(reply: dict) -> bool:
    """Whether a reply has what is needed of it: counts, and the ids of all tokens.

    llama.cpp has ids elsewhere, and sends none for the first bytes of a character.
    """
    try:
        return "prompt_tokens" in reply["usage"] and "token_ids" in reply["choices"][0]
    except (KeyError, IndexError, TypeError):
        return False


def prompt_tokens(endpoint: Endpoint, reply: dict) -> int:
    """How many tokens the server counted in a prompt. Raises EndpointError if it says nothing."""
    try:
        return reply["usage"]["prompt_tokens"]
    except (KeyError, TypeError) as error:
        raise EndpointError(
            f"the server does not count its tokens (usage): {endpoint.told(reply)}"
        ) from error
