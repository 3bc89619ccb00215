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
from functools import cache
from typing import TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

# Too busy, or broken in a way that may pass; every other refusal is final.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_DELAY_S = 60.0
# Far above any completion (10,000 tokens are some 50 kB); a body without an end stops here.
LARGEST_BODY = 50_000_000
TOLD = 300  # characters of a server's own words that an error repeats

_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+")

Item = TypeVar("Item")
Result = TypeVar("Result")


class EndpointError(RuntimeError):
    """A server that could not be reached, or that refused; the message says what it said."""


class _PassingError(Exception):
    """What may be gone at the next attempt; `asked_s` is how long the server asks to wait."""

    def __init__(self, fault: str, asked_s: float | None = None):
        super().__init__(fault)
        self.asked_s = asked_s


@dataclass(frozen=True)
class Endpoint:
    """One model behind one server.

    `url` ends in the version, as in "http://localhost:8000/v1". `key_variable` names the
    environment variable that holds the server's key, if it wants one: keys stand in no file.
    A request may take `timeout_s` in all. One that meets a passing fault is repeated `retries`
    times, after `delay_s` doubling each time, or after as long as the server asks for.

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

        Raises EndpointError when the server refuses, or still fails after the last retry. No error
        repeats the key, whatever the server says.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=stop_after_attempt(self.retries + 1),
            wait=self._wait,
            reraise=True,
        )
        try:
            return attempts(self._post_once, f"{self.url.rstrip('/')}/{path}", body)
        except _PassingError as fault:
            raise EndpointError(
                f"{self.url} ({self.model}) failed {self.retries + 1} times, the last time with "
                f"{fault}: check that the server runs; what was done so far is kept"
            ) from None

    def told(self, words: object) -> str:
        """A server's own words as an error may repeat them: one short line without the key."""
        line, key = " ".join(str(words).split()), self._key
        if key:
            line = line.replace(key, "***")
        return _BEARER.sub(r"\1 ***", line)[:TOLD]

    @property
    def _key(self) -> str | None:
        return os.environ.get(self.key_variable, "").strip() or None

    def _post_once(self, url: str, body: dict) -> dict:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            # A connection for each request: one that is given up takes no other with it.
            with httpx.stream(
                "POST",
                url,
                json={"model": self.model} | body,
                headers=headers,
                timeout=self.timeout_s,
                verify=_certificates(),
            ) as response:
                content = _whole(response, time.monotonic() + self.timeout_s)
            text = content.decode("utf-8", errors="replace")
            if response.is_success:
                reply = json.loads(text)
                if isinstance(reply, dict):
                    return reply
        except (httpx.TransportError, httpx.DecodingError, ValueError, RecursionError) as error:
            raise _PassingError(self.told(f"{type(error).__name__}: {error}")) from error
        fault = self.told(f"{response.status_code}: {text}")
        if response.status_code in PASSING or response.is_success:
            raise _PassingError(fault, _asked_delay(response))
        raise EndpointError(f"{url} refused with {fault}")

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


def _asked_delay(response: httpx.Response) -> float | None:
    """The seconds a server asks to wait; it may also name a date, which is not heeded."""
    try:
        asked = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return asked if math.isfinite(asked) and asked >= 0 else None
