"""The way to a host: what `way_to_a_host.py` asks holds, and what a host lacks is named."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from nnsight import CONFIG, ndif

from r2a_utils.models.hosted import ask_host, what_lacks
from r2a_utils.models.loading import load_model

HERE = Path(__file__).parent
MODEL = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
STATUS = httpx.Request("GET", "https://api.ndif.us/status")
RUNNING = {"a": {"repo_id": MODEL, "application_state": "RUNNING"}}


def test_what_goes_to_a_host_comes_back_as_from_here():
    bare = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", str(HERE / "way_to_a_host.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *bare], cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 8


@pytest.fixture
def asked(monkeypatch):
    """A host that answers as it is told, with a key."""

    def answer(deployments=RUNNING, versions=None, key="secret"):
        versions = versions or {"nnsight": "1", "transformers": "2"}
        here = {"nnsight": "1", "transformers": "2"}
        monkeypatch.setattr(CONFIG.API, "APIKEY", key)
        said = httpx.Response(200, json={"deployments": deployments}, request=STATUS)
        monkeypatch.setattr(httpx, "get", lambda url, timeout: said)
        found = ndif.EnvComparison({"packages": here}, {"packages": versions})
        monkeypatch.setattr(ndif, "compare", lambda: found)
        return what_lacks(MODEL)

    return answer


def test_a_host_that_runs_a_model_lacks_nothing(asked):
    assert asked() == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"key": None}, "put it into the environment as NDIF_API_KEY"),
        ({"deployments": {}}, f"does not run {MODEL} now; it runs no model"),
        ({"versions": {"nnsight": "0.7", "transformers": "2"}}, r"has nnsight 0.7 \(here 1\)"),
    ],
)
def test_what_a_host_lacks_is_one_sentence(asked, answer, said):
    found = asked(**answer)
    assert re.search(said, found) and "\n" not in found and "secret" not in found


def test_a_host_that_cannot_be_asked_is_named(asked, monkeypatch):
    asked()
    monkeypatch.setattr(
        httpx, "get", lambda url, timeout: (_ for _ in ()).throw(OSError("no route"))
    )
    assert "cannot be asked (OSError: no route)" in what_lacks(MODEL)


def test_a_model_of_this_machine_is_on_no_host():
    with pytest.raises(ValueError, match="lies on this machine; a host runs models of the hub"):
        load_model("r2a-tiny", remote=True)


def test_without_a_key_no_host_is_asked(asked, monkeypatch):
    asked()
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    monkeypatch.delattr(httpx, "get")
    assert "asks for a key" in ask_host()[0]


def test_a_host_that_is_not_there_is_told_from_one_that_runs_nothing(monkeypatch):
    """By the network itself: nothing listens at this port."""
    monkeypatch.setattr(CONFIG.API, "APIKEY", "secret")
    monkeypatch.setattr(CONFIG.API, "HOST", "http://127.0.0.1:9")
    said, running = ask_host(1)
    assert "http://127.0.0.1:9 cannot be asked (ConnectError" in said and not running
