"""The way to a host: what `way_to_a_host.py` asks holds, and what a host lacks is named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nnsight import CONFIG, ndif

from r2a_utils.models.hosted import what_lacks
from r2a_utils.models.loading import load_model

HERE = Path(__file__).parent
MODEL = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
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
        monkeypatch.setattr(ndif, "status", lambda raw: {"deployments": deployments})
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
    monkeypatch.setattr(ndif, "status", lambda raw: (_ for _ in ()).throw(OSError("no route")))
    assert "cannot be asked (OSError: no route)" in what_lacks(MODEL)


def test_a_model_of_this_machine_is_on_no_host():
    with pytest.raises(ValueError, match="lies on this machine; a host runs models of the hub"):
        load_model("r2a-tiny", remote=True)
