"""The engine: forward passes that recompute only what a patch can change.

This room runs a model with activations cached, patched, cut or ablated. It knows tokens and
layers, not what they mean.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answer_logprobs": ["answer_caches", "answer_scores", "logit_difference", "cached_scores"],
        "patches": [
            "PatchedRun",
            "COMPONENTS",
            "EdgeCut",
            "Patch",
            "HEAD_COMPONENTS",
            "ActivationCache",
        ],
        "forward": [
            "continue_greedily",
            "engine_of",
            "extend",
            "run_with_cache",
            "replay",
            "run_with_graph",
        ],
    },
)
