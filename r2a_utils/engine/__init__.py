"""The engine: forward passes that recompute only what an edit can change.

This room runs a model with activations recorded, patched, cut or ablated. It knows tokens and
layers, not what they mean.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answer_logprobs": ["answer_runs", "answer_scores", "logit_difference", "recorded_scores"],
        "edits": ["Branch", "COMPONENTS", "Cut", "Edit", "HEAD_COMPONENTS", "Recording"],
        "forward": [
            "common_prefix",
            "continue_greedily",
            "extend",
            "read_residuals",
            "record",
            "replay",
            "run_live",
        ],
    },
)
