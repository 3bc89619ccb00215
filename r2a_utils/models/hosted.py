"""Models on a host (NDIF): the weights stay there, and blocks of code travel, by nnsight.

What runs on the host is the plain engine, in the model's own functions. Where its decoder is read
and written is found on a stand-in that runs here (`loading.stand_in`): the same family with the
same layers and heads, its stream, its MLPs and its vocabulary made narrow (`narrowed`).
"""

from __future__ import annotations

import copy

import httpx
import nnsight
from nnsight import CONFIG, ndif
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

NARROW = 64
"""Width of a stand-in's stream and MLPs, and tokens of its vocabulary."""
MUST_AGREE = ("nnsight", "transformers")
"""Libraries whose version decides what a block means: operations are numbered by them."""


def hosted_wrapper(
    hub_id: str, commit: str | None, tokenizer: PreTrainedTokenizerBase, remote: bool | str
) -> nnsight.TransformersModel:
    """nnsight's wrapper of a model without weights here, whose traces a host runs.

    Raises ValueError, with a sentence, where the host cannot run it (`what_lacks`).
    """
    if isinstance(remote, str):
        CONFIG.API.HOST = remote
    lacking = what_lacks(hub_id)
    if lacking:
        raise ValueError(lacking)
    nnsight.register("r2a_utils")
    return nnsight.TransformersModel(hub_id, revision=commit, tokenizer=tokenizer)


def what_lacks(hub_id: str) -> str:
    """Why a host cannot run a model now, in one sentence; empty where it can."""
    lacking, running = ask_host()
    if not lacking and hub_id not in running:
        named = ", ".join(sorted(running)) or "no model"
        return f"the host {CONFIG.API.HOST} does not run {hub_id} now; it runs {named}."
    return lacking


def ask_host(seconds: float = 30) -> tuple[str, frozenset[str]]:
    """What stands between this machine and a host, in one sentence, and what the host runs now.

    The sentence is empty where nothing does; models are told by their hub ids. The host is
    nnsight's (`NDIF_HOST`), the key that of `NDIF_API_KEY` or of nnsight's own configuration; no
    file of a run holds it. Without a key nothing is asked; an answer is waited for so many seconds.
    """
    host = CONFIG.API.HOST
    if not CONFIG.API.APIKEY:
        said = "get one at login.ndif.us, and put it into the environment as NDIF_API_KEY"
        return f"the host {host} asks for a key: {said}.", frozenset()
    try:
        # nnsight's own `status` takes a host that cannot be reached for one that runs nothing
        answer = httpx.get(f"{host}/status", timeout=seconds).raise_for_status()
        running = _running(answer.json())
        theirs = ndif.compare()
    except (httpx.HTTPError, OSError, ValueError) as error:
        said = str(error).partition("\n")[0] or "no answer"
        return f"the host {host} cannot be asked ({type(error).__name__}: {said}).", frozenset()
    differing = [
        f"{name} {found['remote']} (here {found['local']})"
        for name, found in theirs.packages.items()
        if name.lower() in MUST_AGREE and not found["match"]
    ]
    if differing:
        said = "install the same, since blocks name the operations of that release"
        return f"the host {host} has {' and '.join(differing)}: {said}.", running
    return "", running


def narrowed(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a small model with the same family, layers and heads."""
    narrow = copy.deepcopy(config)
    narrow.head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    for name in ("hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size"):
        if getattr(narrow, name, None):
            setattr(narrow, name, NARROW)
    narrow.pad_token_id = narrow.bos_token_id = narrow.eos_token_id = None
    return narrow


def _running(status: dict) -> frozenset[str]:
    return frozenset(
        one["repo_id"]
        for one in status.get("deployments", {}).values()
        if one.get("application_state") == "RUNNING" and one.get("repo_id")
    )
