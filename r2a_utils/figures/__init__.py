"""Figures: arrays and frames in, a Figure with alt text out; and the views that live in a page.

`from r2a_utils import figures` is all that a notebook needs. This room knows no model and no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": [
            "accuracy_by_steps",
            "belief_curves",
            "early_answering",
            "funnel",
            "no_cue",
            "paired_accuracy",
            "paired_scores",
            "score_panels",
        ],
        "attention": ["AttentionPanel", "attention_maps", "segment_shares", "six_boxes"],
        "choices": ["pick_view"],
        "contrast": ["pair_texts"],
        "heads": [
            "HEAD_MARKS",
            "corrected_digits",
            "cue_lift",
            "depth_distribution",
            "head_maps",
            "head_ranking",
            "trajectories",
        ],
        "home": ["home_answers", "home_heads", "home_patching"],
        "instruments": ["instrument_aucs", "instrument_doses"],
        "layers": ["layers_together"],
        "patching": [
            "CURVE_COLOURS",
            "approximate_against_exact",
            "flips",
            "head_sets",
            "knockout_profile",
            "layer_curves",
            "patch_grid",
        ],
        "sentences": ["sentence_page"],
        "style": [
            "CONDITION_COLOURS",
            "CONDITION_LABELS",
            "SEGMENT_COLOURS",
            "SEGMENT_LABELS",
            "BookFigure",
            "head_list",
            "head_name",
            "show_token",
        ],
        "training": ["training_curve"],
        "tables": ["reading_table"],
        "text_tests": ["answer_outcomes", "edited_answers", "hints"],
        "trace": ["coloured_tokens", "one_trace", "trace_anatomy"],
    },
)
