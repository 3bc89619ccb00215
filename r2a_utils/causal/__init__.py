"""Causes: what happens to the answer when something inside the model is changed (stage 3).

This room patches, cuts and ablates. How that is computed quickly is the engine's business.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attribution": [
            "BUDGETS",
            "attribution_grid",
            "check_attribution",
            "rank_correlation",
            "recall_at",
        ],
        "chosen_traces": ["choose_traces"],
        "exchanged_texts": [
            "EXCHANGED",
            "Following",
            "crossed_answers",
            "exchanged_record",
            "exchanged_table",
            "exchanged_tokens",
            "following",
            "following_record",
            "following_table",
        ],
        "head_sets": [
            "REWRITTEN_TOKENS",
            "set_changes",
            "set_table",
            "summarised_interventions",
            "turned_over",
        ],
        "interventions": [
            "Ablation",
            "Knockout",
            "answer_z",
            "knockout",
            "knockout_curves",
            "knockout_heads",
            "knockout_profile",
            "measure",
            "regenerate",
        ],
        "knockout_kinds": [
            "KIND_TITLES",
            "knockout_kinds",
            "log_probability_without_reasoning",
            "summarised_kinds",
        ],
        "pairs": ["ContrastPair", "PROBES", "PROTOCOLS", "probed", "under_protocol"],
        "patching": ["patch_grid", "patch_metrics"],
        "patching_controls": [
            "CONTROLS",
            "control_metrics",
            "control_table",
            "controls_at_two_places",
            "donors",
        ],
        "recorded_pairs": [
            "KEPT",
            "MIN_GAP",
            "RecordedPair",
            "families_of",
            "family_of",
            "pair_funnel",
            "record_pair",
            "sift",
            "why_none_is_kept",
        ],
        "random_sets": ["against_random", "n_possible_sets", "random_head_sets", "random_spans"],
        "sentence_importance": [
            "SHOWN_SENTENCES",
            "example_of",
            "over_many_traces",
            "read_by_sentence",
            "summarised_sentences",
        ],
        "sentences": [
            "answer_lens",
            "forced_answers",
            "resampled_answers",
            "sentence_knockouts",
            "shortened",
        ],
        "two_places": [
            "PLACES",
            "by_depth",
            "case_curves",
            "family_curves",
            "first_and_last",
            "flip_rates",
            "mean_curve",
            "patch_two_places",
            "place_curves",
            "probe_nats",
            "summarised_patching",
            "two_places",
        ],
    },
)
