"""Requests are repeated where that can help, and refused loudly where it cannot."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from local_server import serve

from r2a_utils.collecting.endpoint import (
    Endpoint,
    EndpointError,
    RefusalError,
    concurrently,
    whole_characters,
)


def endpoint(url: str, **settings) -> Endpoint:
    return Endpoint(url, "m", **{"delay_s": 0.01, "timeout_s": 10, "retries": 3} | settings)


def post(to: Endpoint, body: dict | None = None) -> dict:
    return to.post("completions", body or {})


def failing(replies: list, seen: list):
    """A server that gives these replies one after the other, then {"ok": True}."""

    def reply(path, body, headers):
        seen.append((path, body, headers))
        return replies[len(seen) - 1] if len(seen) <= len(replies) else {"ok": True}

    return reply


def test_the_model_and_the_body_are_posted():
    seen: list = []
    with serve(failing([], seen)) as url:
        assert post(endpoint(url), {"prompt": "a"}) == {"ok": True}
    path, body, headers = seen[0]
    assert path == "/v1/completions" and body == {"model": "m", "prompt": "a"}
    assert "Authorization" not in headers


def test_the_key_comes_from_the_environment_and_stands_nowhere_else(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    seen: list = []
    with serve(failing([], seen)) as url:
        to = endpoint(url, key_variable="MY_KEY")
        post(to)
    assert seen[0][2]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(to)


@pytest.mark.parametrize(
    "fault", [(503, "busy"), (500, "oops"), (429, "slow down"), (200, "{torn")]
)
def test_a_passing_fault_is_tried_again(fault):
    seen: list = []
    with serve(failing([fault, fault], seen)) as url:
        assert post(endpoint(url)) == {"ok": True}
    assert len(seen) == 3


def test_the_last_fault_is_told():
    seen: list = []
    with (
        serve(failing([(500, "out of memory")] * 9, seen)) as url,
        pytest.raises(EndpointError, match=r"failed 4 times.*500: out of memory"),
    ):
        post(endpoint(url))
    assert len(seen) == 4
    with (
        serve(lambda *request: (503, "the model is loading")) as url,
        pytest.raises(EndpointError, match=r"failed \d+ times.*503: the model is loading"),
    ):
        post(endpoint(url, timeout_s=0.3))


def test_a_refusal_is_final():
    seen: list = []
    with (
        serve(failing([(404, '{"error": "no model m"}')], seen)) as url,
        pytest.raises(EndpointError, match=r"refused with 404: .*no model m"),
    ):
        post(endpoint(url))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "no model m", "code": 400}}, "no model m"),
        ({"object": "error", "message": "no model m"}, "no model m"),
        ({"error": "no model m"}, "no model m"),
        ({"detail": "no model m"}, "no model m"),
        (
            {"detail": [{"loc": ["body", "top_p"], "msg": "too high", "input": {"prompt": 1}}]},
            "body.top_p: too high",
        ),
        ({"detail": ["?"]}, '{"detail": ["?"]}'),
        ([], "[]"),
        ("no model m", "no model m"),
    ],
)
def test_what_a_refusal_says_is_told_without_what_was_sent(body, told):
    with serve(lambda *request: (422, body)) as url, pytest.raises(RefusalError) as refusal:
        post(endpoint(url))
    assert str(refusal.value).endswith(f"refused with 422: {told}")


@pytest.mark.parametrize(
    ("reply", "names"),
    [({"data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]), ({"data": None}, []), ((404, "?"), [])],
)
def test_a_server_may_say_what_it_serves(reply, names):
    asked = []

    def models(path, body, headers):
        asked.append(path)
        return reply

    with serve(models) as url:
        assert endpoint(url).models() == names
    assert asked == ["/v1/models"]
    assert endpoint("http://127.0.0.1:9/v1").models() == []


def test_the_server_may_ask_for_a_longer_wait():
    seen: list = []
    with serve(failing([(429, "later", {"Retry-After": "0.5"})], seen)) as url:
        start = time.monotonic()
        post(endpoint(url))
    assert time.monotonic() - start >= 0.5


def test_a_wait_may_be_asked_for_as_a_date():
    seen: list = []
    then = datetime.now(UTC) + timedelta(seconds=3)  # dates are told in whole seconds
    with serve(
        failing([(503, "later", {"Retry-After": format_datetime(then, True)})], seen)
    ) as url:
        start = time.monotonic()
        post(endpoint(url))
    assert time.monotonic() - start >= 1.5


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_for_longer_than_a_broken_one(status):
    seen: list = []
    with serve(failing([(status, "busy")] * 6, seen)) as url:
        assert post(endpoint(url, retries=0, timeout_s=30)) == {"ok": True}
    assert len(seen) == 7


@pytest.mark.parametrize("asked", ["-5", "nan", "inf", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_wait_that_means_nothing_is_not_heeded(asked):
    seen: list = []
    with serve(failing([(429, "later", {"Retry-After": asked})], seen)) as url:
        assert post(endpoint(url)) == {"ok": True}
    assert len(seen) == 2


def test_a_body_that_trickles_has_no_more_time_than_any_other():
    def trickle(path, body, headers):
        def pieces():
            while True:
                time.sleep(0.02)
                yield b" "

        return 200, pieces()

    with serve(trickle) as url, pytest.raises(EndpointError, match="did not end in time"):
        post(endpoint(url, timeout_s=0.3, retries=0))


def test_a_body_without_an_end_stops_at_a_limit():
    def endless(path, body, headers):
        return 200, iter(lambda: b" " * 1_000_000, None)

    with serve(endless) as url, pytest.raises(EndpointError, match="sent more than 50 MB"):
        post(endpoint(url, timeout_s=60))


@pytest.mark.parametrize(
    "secret",
    ["http://user:pa55@host/v1", "http://pa55@host/v1", "https://host/v1?api_key=pa55",
     "https://host/v1#pa55"],
)  # fmt: skip
def test_a_url_with_a_secret_is_refused_without_repeating_it(secret):
    with pytest.raises(ValueError, match="environment variable R2A_API_KEY") as refusal:
        Endpoint(secret, "m")
    assert "pa55" not in str(refusal.value)


@pytest.mark.parametrize("key", ["s3cret", "s3cret\n", " s3cret with blanks", "s3cret\u2026"])
@pytest.mark.parametrize("status", [401, 503])
def test_no_error_repeats_the_key(monkeypatch, key, status):
    monkeypatch.setenv("R2A_API_KEY", key)

    def echo(path, body, headers):
        return status, "x" * 280 + f"\nyou\nsent {headers} " + f"{key}"

    with serve(echo) as url, pytest.raises(EndpointError) as refusal:
        post(endpoint(url, retries=0, timeout_s=0.2))
    assert "s3cret" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_halves_of_characters_can_be_kept():
    assert whole_characters("a\ud800b\U0001f600\udc00") == "a\ufffdb\U0001f600\ufffd"


def test_a_server_that_is_silent_or_gone_is_an_error():
    def silent(path, body, headers):
        time.sleep(0.5)
        return {}

    with serve(silent) as url, pytest.raises(EndpointError, match="ReadTimeout"):
        post(endpoint(url, timeout_s=0.1, retries=1))
    with pytest.raises(EndpointError, match="ConnectError"):
        post(endpoint(url, retries=1))


def test_as_many_as_asked_run_at_a_time_and_none_is_lost():
    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return item**2

    results = dict(concurrently(work, list(range(20)), 4))
    assert results == {i: i**2 for i in range(20)}
    assert most == 4
    with pytest.raises(ValueError, match="at least 1"):
        list(concurrently(work, [1], 0))


def test_the_first_error_ends_the_work():
    done: list[int] = []

    def work(item: int) -> int:
        if item == 2:
            raise EndpointError("gone")
        time.sleep(0.01)
        done.append(item)
        return item

    with pytest.raises(EndpointError, match="gone"):
        list(concurrently(work, list(range(200)), 2))
    assert len(done) < 100
