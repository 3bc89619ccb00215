"""Publishing: executed stages and hand-written pages become the book.

This room shows what runs have found. It measures nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "book": ["publish"],
        "book_runs": ["PublishError", "declared_runs"],
        "exercises": ["ExerciseError", "has_tag", "load_exercises"],
        "plain_markdown": ["plain_markdown", "without_answers"],
        "quoted_numbers": ["ProseError", "render"],
        "summary": ["summary"],
    },
)
