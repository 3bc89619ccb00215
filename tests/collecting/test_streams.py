"""Streamed completions, put together: by hand, and as a server sends them."""

from __future__ import annotations

import json

import pytest
from local_server import serve

from r2a_utils.collecting.decoding import Prompt, Sampling
from r2a_utils.collecting.endpoint import Endpoint, EndpointError
from r2a_utils.collecting.server import server_backend
from r2a_utils.collecting.streams import joined
from r2a_utils.texts.problem import Problem

TEXT = "\nHm.\n</think>\n\n4"


def events(*told: dict, end: str = "data: [DONE]\n\n") -> bytes:
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n" for event in told]
    return ("".join([": still there\n\n", *lines]) + end).encode()


def piece(text: str, ids: list[int], reason: str | None = None) -> dict:
    choice = {"index": 0, "text": text, "token_ids": ids, "finish_reason": reason}
    return {"id": "c1", "choices": [choice], "usage": None}


USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}


def test_texts_and_ids_are_strung_together_and_the_last_word_on_all_else_stands():
    content = events(piece("a\u2028b", [1, 2]), piece("", [3]), piece(" c", [4], "stop"), USAGE)
    assert joined(content) == {
        "id": "c1",
        "choices": [
            {"index": 0, "text": "a\u2028b c", "token_ids": [1, 2, 3, 4], "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }


def test_a_thought_in_a_field_of_its_own_may_come_before_the_text():
    """And the stream may end without a word, as that of `transformers serve` does."""
    thinking = [{"choices": [{"reasoning": word, "text": None}]} for word in ("so", " 4")]
    [choice] = joined(events(*thinking, piece("4", [4], "stop"), end=""))["choices"]
    assert (choice["reasoning"], choice["text"]) == ("so 4", "4")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (events(piece("a", [1]), end=""), "broke off"),
        (events(piece("a", [1]), USAGE), "broke off"),
        (events({"error": {"message": "out of memory"}}), "out of memory"),
        (events({"choices": [7]}), "none of completions"),
        (events(piece("a", [1]), piece(7, [2])), "none of completions"),
        (b"data: {half\n\n", "Expecting"),
    ],
)
def test_a_stream_that_is_not_whole_is_no_reply(content, fault):
    with pytest.raises(ValueError, match=fault):
        joined(content)


class Streaming:
    """A server that streams `TEXT` where it is asked to, token by token, with or without ids."""

    def __init__(self, tokenizer, with_ids: bool = True, breaks: int = 0):
        self.ids = tokenizer.encode(TEXT, add_special_tokens=False)
        self.decode, self.with_ids, self.breaks, self.bodies = (
            tokenizer.decode,
            with_ids,
            breaks,
            [],
        )

    def __call__(self, path, body, headers):
        self.bodies.append(body)
        pieces = [piece(self.decode([i]), [i]) for i in self.ids[: body["max_tokens"]]]
        reason = "stop" if len(pieces) == len(self.ids) else "length"
        pieces[-1]["choices"][0]["finish_reason"] = reason
        if not self.with_ids:
            for told in pieces:
                del told["choices"][0]["token_ids"]
        usage = {"choices": [], "usage": {"prompt_tokens": len(body["prompt"])}}
        whole = events(*pieces, usage)
        if not body.get("stream"):
            return joined(whole)
        if body["max_tokens"] > 1 and self.breaks:
            self.breaks -= 1
            whole = events(*pieces[:2], end="")
        return 200, whole.decode(), {"Content-Type": "text/event-stream; charset=utf-8"}


def complete(server: Streaming, tokenizer) -> list[int]:
    ids = tokenizer.encode("3 plus 1?", add_special_tokens=False)
    prompt = Prompt((tokenizer.bos_token_id, *ids), Problem("p", "3 plus 1?"), "with_reasoning", 0)
    with serve(server) as url:
        to = Endpoint(url, "m", timeout_s=60, retries=2, delay_s=0.01)
        [written] = server_backend(to, tokenizer)([prompt], Sampling(99))
    assert written.finished
    return written.ids


def test_a_text_is_streamed_where_its_ids_come_with_it(tokenizer):
    server = Streaming(tokenizer)
    assert complete(server, tokenizer) == server.ids
    asked = server.bodies[-1]
    assert asked["stream"] and asked["stream_options"] == {"include_usage": True}


def test_a_text_is_not_streamed_where_its_ids_would_be_lost(tokenizer):
    server = Streaming(tokenizer, with_ids=False)
    assert complete(server, tokenizer) == server.ids
    assert not any("stream" in body for body in server.bodies if body["max_tokens"] > 1)


def test_a_stream_that_broke_off_is_asked_for_again(tokenizer):
    server = Streaming(tokenizer, breaks=2)
    assert complete(server, tokenizer) == server.ids
    with pytest.raises(EndpointError, match="broke off"):
        complete(Streaming(tokenizer, breaks=3), tokenizer)
