"""Attention: where the answer's tokens look, and which heads do (stage 2).

This room reads what a model attends to. It changes nothing in the model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "copying_heads": [
            "top_copying_heads",
            "induction_scores",
            "needle_cases",
            "retrieval_scores",
        ],
        "error_reading": ["answer_read", "error_hits", "nearest_right", "sentence_reading"],
        "heads": [
            "border_test",
            "depth_test",
            "head_overlap",
            "head_scores",
            "rank_heads",
            "ranking_across_lengths",
            "ranking_reliability",
            "shuffled_borders",
            "sink_free_mass",
            "uniform_mass",
        ],
        "logit_attribution": ["head_contributions"],
        "mass": ["segment_mass", "token_set_mass"],
        "recency": ["distance_test"],
        "trajectories": ["as_generic_text", "cue_lift", "preference", "tracking"],
        "weights": ["attention_profile", "attention_rows"],
    },
)
