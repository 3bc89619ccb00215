"""Causes: what happens to the answer when something inside the model is changed (stage 3).

This room patches, cuts and ablates. How that is computed quickly is the engine's business.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attribution": ["attribution_grid", "rank_correlation", "recall_at"],
        "interventions": [
            "Ablation",
            "Knockout",
            "answer_z",
            "knockout",
            "knockout_heads",
            "knockout_profile",
            "measure",
            "regenerate",
        ],
        "pairs": ["ContrastPair", "PROBES", "probed"],
        "patching": ["patch_grid", "patch_metrics"],
        "patching_controls": ["CONTROLS", "control_metrics"],
        "recorded_pairs": ["RecordedPair", "check_kept", "record_pair", "sift"],
        "random_sets": ["against_random", "n_possible_sets", "random_head_sets", "random_spans"],
        "sentences": [
            "answer_lens",
            "forced_answers",
            "resampled_answers",
            "sentence_knockouts",
            "shortened",
        ],
    },
)
