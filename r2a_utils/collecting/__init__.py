"""Collecting: problems of named sources and files, and the completions a model writes for them.

This room knows where questions and texts come from. It knows nothing of what is right.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backends": ["backend_of", "teacher_forced", "writer_of"],
        "decoding": ["Prompt", "Sampling", "decode"],
        "endpoint": ["Endpoint", "EndpointError", "concurrently"],
        "generation": [
            "collect_completions",
            "collect_traces",
            "complete_prompts",
            "kept_completions",
        ],
        "grade_school": ["grade_school_pairs"],
        "loading": [
            "column_names",
            "load_problems",
        ],
        "losses": ["explain_losses"],
        "question_pairs": ["paper_question_problems", "question_problems", "write_comparison"],
        "solutions": ["write_solution"],
    },
)
