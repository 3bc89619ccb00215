"""R2A: how reasoning reaches the answer, measured in reasoning language models.

The public names can be imported from here, `from r2a_utils import load_model`; each comes from the
face of the room that carries its noun and is loaded when it is first asked for, so that importing
the package itself is quick and needs no GPU.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["figures", "paper"],
    submod_attrs={
        "answers": ["grade_math"],
        "attention": [
            "attention_profile",
            "attention_rows",
            "rank_heads",
            "segment_mass",
            "token_set_mass",
        ],
        "causal": ["ContrastPair", "attribution_grid", "knockout", "patch_grid"],
        "collecting": ["collect_traces", "load_problems"],
        "models": ["load_model"],
        "runs": ["Run"],
        "texts": ["Trace", "extract_answer"],
    },
)
