"""Attention: where the answer's tokens look, and which heads do (stage 2).

This room reads what a model attends to. It changes nothing in the model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "copying_heads": [
            "copying_summary",
            "induction_scores",
            "needle_cases",
            "retrieval_scores",
            "top_copying_heads",
        ],
        "corrections": [
            "CorrectedValues",
            "corrected_values",
            "restated_digits",
            "value_shares",
        ],
        "distance": ["distance_test", "places_beyond_distance"],
        "distills": ["lifts_of_distills", "measure_distills", "read_distills"],
        "error_reading": [
            "answer_contribution",
            "answer_read",
            "debugging_table",
            "error_hits",
            "nearest_right",
            "sentence_reading",
            "top_sentences",
        ],
        "head_lists": [
            "kinds_of_traces",
            "ranking_across",
            "ranking_where_written",
            "summarise_lists",
        ],
        "head_tests": [
            "border_test",
            "depth_test",
            "head_overlap",
            "shuffled_borders",
            "summarise_ranking",
            "turned_reasonings",
        ],
        "heads": [
            "FEWEST_IN_HALVES",
            "attending_layers",
            "head_pairs",
            "head_scores",
            "rank_heads",
            "ranking_reliability",
            "sink_free_mass",
            "uniform_mass",
        ],
        "logit_attribution": ["has_contributions", "head_contributions"],
        "mass": ["segment_mass", "token_set_mass"],
        "other_texts": ["OnOtherText", "as_generic_text", "on_other_text"],
        "prose": ["PROSE"],
        "published_heads": [
            "printed_heads",
            "printed_places",
            "ranked_heads",
            "summarise_published",
        ],
        "segment_attention": [
            "SegmentAttention",
            "answer_by_segment",
            "lift_by_head",
            "segment_controls",
            "summarise_segments",
        ],
        "sinks": ["Sink", "find_sink"],
        "trajectories": [
            "best_tracking",
            "corrects_itself",
            "cue_lift",
            "has_long_answer",
            "overall_cue_lift",
            "preference",
            "reading_path",
            "tracking",
            "tracking_and_beyond",
        ],
        "untrained": [
            "beside_untrained",
            "following_of",
            "heads_beyond",
            "looking",
            "looking_of",
            "own_following",
            "own_ranking",
            "ranking_of",
        ],
        "weights": ["attention_profile", "attention_rows"],
    },
)
