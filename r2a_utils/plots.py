"""Every figure of the book by name: arrays and frames in, a Figure with alt text out.

The figures lie in one file a subject; this one lists them, so that `from r2a_utils import plots` is
all that a notebook needs. Nothing here knows a model.
"""

from r2a_utils.plots_arms import early_answering, no_cue
from r2a_utils.plots_attention import AttentionPanel, attention_maps, segment_shares, six_boxes
from r2a_utils.plots_head_sets import head_sets
from r2a_utils.plots_heads import (
    HEAD_MARKS,
    cue_lift,
    depth_distribution,
    head_maps,
    head_ranking,
    trajectories,
)
from r2a_utils.plots_home import home_answers, home_heads, home_patching
from r2a_utils.plots_patching import (
    CURVE_COLOURS,
    approximate_against_exact,
    flips,
    knockout_profile,
    layer_curves,
    patch_grid,
)
from r2a_utils.plots_quality import (
    accuracy_by_steps,
    funnel,
    paired_accuracy,
    paired_scores,
    score_panels,
    training_curve,
)
from r2a_utils.plots_sentences import sentence_page
from r2a_utils.plots_style import (
    CONDITION_COLOURS,
    CONDITION_LABELS,
    SEGMENT_COLOURS,
    SEGMENT_LABELS,
    BookFigure,
    head_name,
    show_token,
)
from r2a_utils.plots_trace import coloured_tokens, one_trace, trace_anatomy

__all__ = [
    "CONDITION_COLOURS",
    "CONDITION_LABELS",
    "CURVE_COLOURS",
    "HEAD_MARKS",
    "SEGMENT_COLOURS",
    "SEGMENT_LABELS",
    "AttentionPanel",
    "BookFigure",
    "accuracy_by_steps",
    "approximate_against_exact",
    "attention_maps",
    "coloured_tokens",
    "cue_lift",
    "depth_distribution",
    "early_answering",
    "flips",
    "funnel",
    "head_maps",
    "head_name",
    "head_ranking",
    "head_sets",
    "home_answers",
    "home_heads",
    "home_patching",
    "knockout_profile",
    "layer_curves",
    "no_cue",
    "one_trace",
    "paired_accuracy",
    "paired_scores",
    "patch_grid",
    "score_panels",
    "segment_shares",
    "sentence_page",
    "show_token",
    "six_boxes",
    "trace_anatomy",
    "training_curve",
    "trajectories",
]
