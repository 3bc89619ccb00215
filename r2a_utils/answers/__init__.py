"""Answers: the boxed answer of a text, whether it is right, and what that says of a condition.

This room grades, judges and compares (stage 1). It reads no activations.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": [
            "ACCOUNTING",
            "accuracies",
            "equally_long",
            "funnel",
            "mean_scores",
            "paired_comparison",
            "paired_scores",
            "tokens_per_right_answer",
        ],
        "early_answering": [
            "EarlyAnswering",
            "area_over_curve",
            "early_answers",
            "early_curve",
            "early_summary",
        ],
        "edited_thoughts": [
            "CONNECTIVES",
            "EDITS",
            "Mistake",
            "REWORDINGS",
            "Removal",
            "mistakes_in",
            "removal_in",
        ],
        "equality": ["equal", "grade_math", "same_answer"],
        "graded": [
            "answer_texts",
            "find_answers",
            "grade_completions",
            "traces_by_grade",
        ],
        "hints": [
            "HINTS",
            "HintedQuestion",
            "hint_answers",
            "hint_rates",
            "hint_record",
            "hinted_questions",
            "judge_mentions",
            "says_hint",
        ],
        "judging": ["Judge", "judge_answers"],
        "no_cue": [
            "NoCue",
            "arm_summary",
            "compare_arms",
            "cue_token_ids",
            "cued_problems",
        ],
        "published": [
            "most_unfinished",
            "published_comparison",
            "published_funnel",
            "published_scores",
        ],
        "quality": [
            "AnswerQuality",
            "accuracies_by_family",
            "accuracies_by_rule",
            "answer_quality",
            "asked_for",
            "compare_conditions",
            "compare_scores",
            "slicing",
        ],
        "regrading": [
            "Regrading",
            "grading_disagreements",
            "original_answers",
            "regraded_counts",
            "regraded_traces",
            "regrading_summary",
            "reviewed_disagreements",
            "reviewed_grades",
        ],
        "text_effects": [
            "SwapEffects",
            "edit_rates",
            "edit_tests",
            "outcomes",
            "swap_effects",
            "text_record",
        ],
        "text_tests": [
            "EditedThought",
            "Thought",
            "ask_edited",
            "edited",
            "mistaken",
            "own_thoughts",
            "swapped",
            "with_anothers",
            "with_removal",
        ],
    },
)
