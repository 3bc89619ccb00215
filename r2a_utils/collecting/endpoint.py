"""OpenAI-compatible servers: post a request, try again where that can help, many at a time.

vLLM, SGLang, llama.cpp's server, `transformers serve`, and hosted services speak this protocol.
Used by `server.py` (completions) and `answers/judging.py` (chat). Knows HTTP and keeps secrets;
knows nothing of prompts or scores.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from r2a_utils.collecting.streams import MEDIA_TYPE, joined

# Too much asked at once, or a model that is still being loaded: it passes, but may take a while.
BUSY = frozenset({429, 503})
# Broken in a way that may pass; every other refusal is final.
PASSING = frozenset({408, 409, 425, 500, 502, 504}) | BUSY
LONGEST_DELAY_S = 60.0
LONGEST_BUSY_S = 600.0  # a large model is loaded in minutes; a quota that is used up does not pass
# Far above any completion (10,000 tokens are some 50 kB); a body without an end stops here.
LARGEST_BODY = 50_000_000
TOLD = 300  # characters of a server's own words that an error repeats

_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+")

Item = TypeVar("Item")
Result = TypeVar("Result")


class EndpointError(RuntimeError):
    """A server that could not be reached, or that refused; the message says what it said."""


class RefusalError(EndpointError):
    """A server that will not do what is asked, however often; the message says why."""


class _PassingError(Exception):
    """What may be gone at the next attempt; `asked_s` is how long the server asks to wait."""

    def __init__(self, fault: str, asked_s: float | None = None, busy: bool = False):
        super().__init__(fault)
        self.asked_s, self.busy = asked_s, busy


@dataclass(frozen=True)
class Endpoint:
    """One model behind one server.

    `url` ends in the version, as in "http://localhost:8000/v1". `key_variable` names the
    environment variable that holds the server's key, if it wants one: keys stand in no file.
    A request may take `timeout_s` in all. One that meets a passing fault is repeated `retries`
    times, after `delay_s` doubling each time, or after as long as the server asks for; one that
    meets a busy server, until `timeout_s`, or ten minutes, have gone by.

    Raises ValueError for a `url` that holds a password or a query: it would be published.
    """

    url: str
    model: str
    key_variable: str = "R2A_API_KEY"
    timeout_s: float = 600.0
    retries: int = 5
    delay_s: float = 1.0

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"the server's URL cannot be read: {error}") from error
        if url.userinfo or url.query or url.fragment:
            raise ValueError(
                f"the URL of the server {url.host} holds a password or a query, and URLs are "
                f"published: give it without, and put the key into the environment variable "
                f"{self.key_variable}"
            )

    def post(self, path: str, body: dict) -> dict:
        """Post {"model": …} + `body` and return the server's JSON object. From any thread.

        A completion that is streamed, if `body` asks for it, is returned as one that is not.

        Raises RefusalError when the server refuses, EndpointError when it still fails after the
        last retry. No error repeats the key, whatever the server says.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=self._is_over,
            wait=self._wait,
            reraise=True,
        )
        try:
            return attempts(self._post_once, f"{self.url.rstrip('/')}/{path}", body)
        except _PassingError as fault:
            raise EndpointError(
                f"{self.url} ({self.model}) failed {attempts.statistics['attempt_number']} times, "
                f"the last time with {fault}: check that the server runs; what was done so far is "
                "kept"
            ) from None

    def models(self) -> list[str]:
        """The names of the models that the server says it serves; none where it does not say."""
        try:
            reply = httpx.get(
                f"{self.url.rstrip('/')}/models",
                headers=self._headers,
                timeout=self.timeout_s,
                verify=_certificates(),
            )
            return [str(model["id"]) for model in reply.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return []

    def told(self, words: object) -> str:
        """A server's own words as an error may repeat them: one short line without the key."""
        line, key = " ".join(str(words).split()), self._key
        if key:
            line = line.replace(key, "***")
        return _BEARER.sub(r"\1 ***", line)[:TOLD]

    @property
    def _key(self) -> str | None:
        return os.environ.get(self.key_variable, "").strip() or None

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _post_once(self, url: str, body: dict) -> dict:
        try:
            # A connection for each request: one that is given up takes no other with it.
            with httpx.stream(
                "POST",
                url,
                json={"model": self.model} | body,
                headers=self._headers,
                timeout=self.timeout_s,
                verify=_certificates(),
            ) as response:
                content = _whole(response, time.monotonic() + self.timeout_s)
            text = content.decode("utf-8", errors="replace")
            if response.is_success:
                streamed = response.headers.get("Content-Type", "").startswith(MEDIA_TYPE)
                reply = joined(content) if streamed else json.loads(text)
                if isinstance(reply, dict):
                    return reply
        except (httpx.TransportError, httpx.DecodingError, ValueError, RecursionError) as error:
            raise _PassingError(self.told(f"{type(error).__name__}: {error}")) from error
        fault = self.told(f"{response.status_code}: {_reason(text)}")
        if response.status_code in PASSING or response.is_success:
            busy = response.status_code in BUSY
            raise _PassingError(fault, _asked_delay(response), busy)
        raise RefusalError(f"{url} refused with {fault}")

    def _is_over(self, state: RetryCallState) -> bool:
        if state.outcome.exception().busy:
            return state.seconds_since_start >= min(self.timeout_s, LONGEST_BUSY_S)
        return state.attempt_number > self.retries

    def _wait(self, state: RetryCallState) -> float:
        """Seconds to the next attempt, spread so that what failed together comes back apart."""
        asked = state.outcome.exception().asked_s
        wait = self.delay_s * 2 ** (state.attempt_number - 1) if asked is None else asked
        return min(wait, LONGEST_DELAY_S) * random.uniform(1.0, 1.25)


def concurrently(
    function: Callable[[Item], Result], items: Sequence[Item], concurrency: int
) -> Iterator[tuple[int, Result]]:
    """Apply a function to items, `concurrency` at a time; yield (index, result) as each ends.

    The first error ends it: what has not begun is given up, what has begun is not waited for.
    Raises ValueError for a `concurrency` below 1.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be at least 1.")
    executor = ThreadPoolExecutor(concurrency)
    try:
        futures = {executor.submit(function, item): i for i, item in enumerate(items)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def whole_characters(text: str) -> str:
    """A text that can be encoded: half a surrogate pair, which JSON can hold, becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()  # 20 ms, which a local server's reply may not take


def _whole(response: httpx.Response, deadline: float) -> bytes:
    """The body of a reply; the client's own timeout counts anew with every byte that comes."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_BODY:
            raise EndpointError(f"{response.url} sent more than {LARGEST_BODY / 1e6:.0f} MB")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the reply did not end in time")
    return bytes(content)


def _reason(text: str) -> str:
    """What a refusal says, out of the JSON around it, in the ways in which servers write it.

    FastAPI's `detail` lists places and faults, and repeats what was sent, which is left out here.
    """
    try:
        reply = json.loads(text)
        told = reply.get("error", reply)
        told = told if isinstance(told, str) else told.get("message", told.get("detail"))
        if isinstance(told, list):
            faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in told]
            return "; ".join(f"{place}: {fault}" for place, fault in faults)
        return told if isinstance(told, str) and told else text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text


def _asked_delay(response: httpx.Response) -> float | None:
    """The seconds a server asks to wait, told as such or as a date; None where it asks nothing."""
    told = response.headers.get("Retry-After", "")
    try:
        asked = float(told)
    except ValueError:
        try:
            asked = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a time zone
            return None
    return asked if math.isfinite(asked) and asked >= 0 else None
