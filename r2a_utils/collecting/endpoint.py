"""OpenAI-compatible servers: post a request, try again where that can help, many at a time.

vLLM, SGLang, llama.cpp's server, `transformers serve`, and hosted services speak this protocol.
Used by `server_backend.py` (completions) and `judging.py` (chat). Knows HTTP; knows nothing of
prompts or scores.
"""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import httpx

# Too busy, or broken in a way that may pass; every other refusal is final.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_DELAY_S = 60.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class EndpointError(RuntimeError):
    """A server that could not be reached, or that refused; the message says what it said."""


@dataclass(frozen=True)
class Endpoint:
    """One model behind one server.

    `url` ends in the version, as in "http://localhost:8000/v1". `key_variable` names the
    environment variable that holds the server's key, if it wants one: keys stand in no file.
    A request that meets a passing fault is repeated `retries` times, after `delay_s` doubling
    each time, or after as long as the server asks for.
    """

    url: str
    model: str
    key_variable: str = "R2A_API_KEY"
    timeout_s: float = 600.0
    retries: int = 5
    delay_s: float = 1.0

    def post(self, path: str, body: dict) -> dict:
        """Post {"model": …} + `body` and return the server's JSON object. From any thread.

        Raises EndpointError when the server refuses, or still fails after the last retry.
        """
        url, key = f"{self.url.rstrip('/')}/{path}", os.environ.get(self.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for attempt in range(self.retries + 1):
            wait = self.delay_s * 2**attempt
            try:
                # A connection for each request: one that is given up takes no other with it.
                response = httpx.post(
                    url,
                    json={"model": self.model} | body,
                    headers=headers,
                    timeout=self.timeout_s,
                    verify=_certificates(),
                )
                if response.is_success:
                    reply = response.json()
                    if isinstance(reply, dict):
                        return reply
                fault = f"{response.status_code}: {response.text[:300]}"
                if response.status_code not in PASSING and not response.is_success:
                    raise EndpointError(f"{url} refused with {fault}")
                wait = _asked_delay(response, wait)
            except (httpx.TransportError, ValueError) as error:
                fault = f"{type(error).__name__}: {error}"
            if attempt < self.retries:
                # Spread out, so that requests that failed together do not come back together.
                time.sleep(min(wait, LONGEST_DELAY_S) * random.uniform(1.0, 1.25))
        raise EndpointError(
            f"{self.url} ({self.model}) failed {self.retries + 1} times, the last time with "
            f"{fault}: check that the server runs; what was done so far is kept"
        )


def concurrently(
    function: Callable[[Item], Result], items: Sequence[Item], concurrency: int
) -> Iterator[tuple[int, Result]]:
    """Apply a function to items, `concurrency` at a time; yield (index, result) as each ends.

    The first error ends it: what has not begun is given up, what has begun is not waited for.
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


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()  # 20 ms, which a local server's reply may not take


def _asked_delay(response: httpx.Response, otherwise: float) -> float:
    """The seconds a server asks to wait; it may also name a date, which is not heeded."""
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return otherwise
