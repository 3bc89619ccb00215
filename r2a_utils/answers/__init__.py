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
            "funnel",
            "mean_scores",
            "paired_comparison",
            "paired_scores",
            "tokens_per_right_answer",
        ],
        "early_answering": ["area_over_curve", "early_answers", "early_curve"],
        "graded": [
            "answer_texts",
            "find_answers",
            "grade_completions",
            "grade_math",
            "same_answer",
            "traces_by_grade",
        ],
        "no_cue": ["arm_difference", "arm_summary", "cue_token_ids"],
        "regrading": [
            "grading_disagreements",
            "original_answers",
            "regraded_traces",
            "reviewed_grades",
        ],
        "judging": ["Judge", "judge_answers"],
    },
)
