"""Texts: problems, the tags around a thought, traces with their segments, completions on disk.

This room knows how a text is cut into prompt, reasoning and answer. It knows no weights and runs
nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "completions": [
            "Completion",
            "append_completion",
            "read_completions",
            "read_traces",
            "resume_completions",
        ],
        "trace": [
            "CONDITIONS",
            "CUES",
            "Cue",
            "INSTRUCTION",
            "PREFILLED",
            "SEGMENTS",
            "Trace",
            "bos_id",
            "cues",
            "encode",
            "render_prompt",
            "sentences",
            "token_texts",
        ],
    },
)
