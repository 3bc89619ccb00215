"""Is this machine fit for the project, and for which models?

Reads versions, devices and free memory. It loads no model, and asks no network but NDIF's, where
there is a key for it.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from r2a_utils.models.memory import PROMPT_TOKENS, memory_needed, most_rows
from r2a_utils.models.registry import BUNDLED, ORGANISM_MODELS, REGISTRY, shape_of

PACKAGES = ("torch", "transformers", "nnsight", "papermill", "jupyter-book", "xarray", "pandas")
# The paper's limit for a text; the notebooks' `max_new_tokens` may be less.
TOKENS = 10_000
SHORT = 1_000  # tokens of a text whose time on a CPU is told
NOWHERE = "does not fit here; --on ray, a server or NDIF may have room"
ON_NDIF = "NDIF runs it now (`remote`)"
PATIENCE = 3  # seconds for NDIF to answer


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is well, what was found, and what to do where it is not.

    `ok` is None where something is missing that nothing here needs.
    """

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """All checks, first the machine, then what each registered model would need here."""
    ndif, running = _ndif()
    machine = [_python(), *_packages(), _bundled(), _memory(), *_gpus(), ndif, _browser()]
    return [*machine, *_models(running)]


def _python() -> Check:
    found = sys.version.split()[0]
    return Check("Python", sys.version_info >= (3, 11), found, "Python 3.11 or later is needed")


def _packages() -> list[Check]:
    checks = []
    for name in PACKAGES:
        try:
            checks.append(Check(name, True, version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, False, "missing", "make setup"))
    return checks


def _bundled() -> Check:
    weights = BUNDLED / "model.safetensors"
    if not weights.is_file():
        return Check("r2a-tiny", False, "no weights", "make tiny trains it; or clone anew")
    return Check("r2a-tiny", True, f"bundled, {weights.stat().st_size / 1e6:.1f} MB")


def _memory() -> Check:
    free = psutil.virtual_memory().available / 1e9
    advice = "the book needs 4 GB free: close something"
    return Check("memory", free >= 4, f"{free:.1f} GB free", advice)


def _gpus() -> list[Check]:
    checks = []
    for name, free in _free_gpu_memory():
        checks.append(Check("GPU", True, f"{name}, {free / 1e9:.1f} GB free"))
    return checks or [Check("GPU", True, "none; the bundled model and smollm2-135m need none")]


def _ndif() -> tuple[Check, frozenset[str]]:
    """Whether models may be left on NDIF, and the hub ids of those that it runs now."""
    try:
        from r2a_utils.models.hosted import ask_host
    except ImportError as error:
        return Check("NDIF", None, f"cannot be asked: {error}"), frozenset()
    lacking, running = ask_host(PATIENCE)
    if lacking:
        return Check("NDIF", None, lacking), frozenset()
    found = f"there is a key; it runs {len(running)} models now (load_model(…, remote=True))"
    return Check("NDIF", True, found), running


def _browser() -> Check:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        return Check("browser", None, "no Chromium: the tests of the book in a browser skip")
    return Check("browser", True, found)


def _models(on_ndif: frozenset[str]) -> list[Check]:
    gpus = [free for _, free in _free_gpu_memory()]
    memory, speed = psutil.virtual_memory().available, _memory_speed()
    checks = []
    for name in REGISTRY:
        if name == "r2a-tiny" and not (BUNDLED / "config.json").is_file():
            continue
        if name in ORGANISM_MODELS:  # as large as r2a-tiny
            continue
        hosted = REGISTRY[name].hub_id in on_ndif
        if shape_of(name) is None:
            known = f"; {ON_NDIF}" if hosted else ""
            said = f"{name}: what it needs is not estimated{known}"
            checks.append(Check("model", hosted or None, said))
            continue
        half, whole = (memory_needed(name, dtype) for dtype in ("bfloat16", "float32"))
        where = _where(name, gpus, hosted, memory, whole / speed)
        needs = f"weights {half / 1e9:.1f} GB on a GPU, {whole / 1e9:.1f} GB on a CPU"
        checks.append(
            Check("model", True if where else None, f"{name}: {where or NOWHERE} ({needs})")
        )
    return checks


def _where(name: str, gpus: list[int], on_ndif: bool, memory: int, seconds_a_token: float) -> str:
    """The first way that is open to a model: a GPU, all of them, NDIF, the processors; or none."""
    tokens = PROMPT_TOKENS + TOKENS
    one = max((most_rows(name, free, tokens) for free in gpus), default=0)
    if one:
        return f"fits on the GPU, with room for {one} texts of {TOKENS:,} tokens"
    together = most_rows(name, sum(gpus), tokens)
    if together:
        return (
            f"fits on these {len(gpus)} GPUs together, with room for {together} texts of "
            f"{TOKENS:,} tokens"
        )
    if on_ndif:
        return ON_NDIF
    on_cpu = most_rows(name, memory, tokens, "float32")
    if on_cpu:
        minutes = max(1, round(SHORT * seconds_a_token / 60))
        return (
            f"fits on the CPU, with room for {on_cpu} texts of {TOKENS:,} tokens, at about "
            f"{minutes} min for {SHORT:,} tokens"
        )
    return ""


def _memory_speed() -> float:
    """Bytes a second at which this machine reads a matrix to multiply a vector with it.

    Whoever writes one token reads all weights once, so that this bounds how fast a text is written.
    """
    import torch

    matrix = torch.ones(1024, 65536)
    vector, seconds = torch.ones(65536), []
    for _ in range(3):
        clock = time.perf_counter()
        matrix @ vector
        seconds.append(time.perf_counter() - clock)
    return matrix.numel() * matrix.element_size() / min(seconds)


def _free_gpu_memory() -> list[tuple[str, int]]:
    """Name and free bytes of each GPU that torch can use."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [
        (torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[0])
        for index in range(torch.cuda.device_count())
    ]
