"""Checks of the exercises: each tries a participant's function and names the mistake.

This room knows what is right and what the usual mistakes give. It knows no notebook.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": [
            "check_bare_prompt",
            "check_cue_positions",
            "check_difference_interval",
            "check_early_prompt",
            "check_mcnemar",
            "check_segment_borders",
        ],
        "attention": [
            "check_contribution_of_head",
            "check_mass_from_q_k",
            "check_mass_of_head",
            "check_tracking_of_head",
            "check_uniform_null",
        ],
        "outcome": ["CheckFailed", "NotWritten", "Passed"],
        "patching": [
            "check_effect_of_patch",
            "check_knockout_mask",
            "check_mean_ablated_logits",
            "check_patched_logits",
            "example_model",
            "example_pair",
            "example_trace",
        ],
        "passed_exercises": ["progress"],
    },
)
