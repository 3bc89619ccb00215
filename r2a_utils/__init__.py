"""R2A: how reasoning reaches the answer, measured in reasoning language models.

The public names can be imported from here, `from r2a_utils import load_model`; each comes from the
module that carries its noun and is loaded when it is first asked for, so that importing the package
itself is quick and needs no GPU.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "ContrastPair": "pairs",
    "Run": "artifacts",
    "Trace": "traces",
    "attention_profile": "attention",
    "attention_rows": "attention",
    "attribution_grid": "attribution",
    "collect_traces": "generation",
    "extract_answer": "grading",
    "grade_math": "grading",
    "knockout": "interventions",
    "load_model": "models",
    "load_problems": "problems",
    "patch_grid": "patching",
    "rank_heads": "heads",
    "segment_mass": "attention",
    "token_set_mass": "attention",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *globals()]
