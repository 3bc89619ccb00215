"""A reply that a server streams, put together into the one that it would have sent at once.

A long text that is sent only when it has ended keeps a connection silent for minutes, which
proxies cut. This file knows server-sent events, and how completions are cut into them; it sends
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

MEDIA_TYPE = "text/event-stream"
ASKED = {"stream": True, "stream_options": {"include_usage": True}}
"""The words that ask for a stream, with the count of tokens at its end."""
_END = b"[DONE]"  # `transformers serve` ends without it
_PIECES = frozenset({"text", "reasoning", "reasoning_content", "token_ids"})


def joined(content: bytes) -> dict:
    """One reply from the events of a streamed completion.

    Texts and token ids are strung together; of all else, what was told last stands. Raises
    ValueError for a stream that broke off, that tells of a fault, or that is none of completions.
    """
    reply, choice = {}, {}
    try:
        for event in _events(content):
            for part in event.get("choices") or ():
                choice |= {name: value for name, value in part.items() if value is not None} | {
                    name: choice[name] + part[name] if name in choice else part[name]
                    for name in _PIECES & part.keys()
                    if part[name] is not None
                }
            reply |= {name: value for name, value in event.items() if value is not None}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"the stream is none of completions: {error}") from error
    if not choice.get("finish_reason"):
        raise ValueError("the stream broke off")
    return reply | {"choices": [choice]}


def _events(content: bytes) -> Iterator[dict]:
    """What the events hold. Lines end in line feeds alone: JSON may hold other separators."""
    for line in content.split(b"\n"):
        field, _, value = line.partition(b":")
        if field != b"data":
            continue  # a blank line, an event's name, a comment that keeps the connection open
        if value.strip() == _END:
            return
        event = json.loads(value)
        if "error" in event:
            raise ValueError(f"the stream tells of a fault: {event['error']}")
        yield event
