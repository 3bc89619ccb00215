"""Texts: problems, the tags around a thought, traces with their segments, completions on disk.

This room knows how a text is cut into prompt, reasoning and answer. It knows no weights and runs
nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "anatomy": [
            "Anatomy",
            "anatomy_of",
            "problems_of_steps",
            "segment_table",
            "sentence_table",
            "telling_trace",
        ],
        "boxed": ["boxes", "extract_answer", "final_answer"],
        "completions": [
            "Completion",
            "append_completion",
            "held",
            "keep_only",
            "read_completions",
            "read_traces",
            "reusable",
        ],
        "problem": ["Problem", "problems_from_table", "problems_table"],
        "prompts": [
            "Example",
            "INSTRUCTION",
            "PREFILLED",
            "PromptStyle",
            "STYLES",
            "read_style",
            "render_prompt",
            "thought_ids",
        ],
        "tags": [
            "FAULTS",
            "KNOWN_TAGS",
            "R1_TAGS",
            "MalformedError",
            "Tags",
            "answer_part",
            "find_tags",
            "read_tags",
            "respelt",
            "split_completion",
        ],
        "tokens": ["bos_id", "common_prefix", "encode", "token_texts"],
        "trace": [
            "CONDITIONS",
            "CUES",
            "Cue",
            "EXAMPLES",
            "SEGMENTS",
            "STEM",
            "Trace",
            "answer_span",
            "answer_stem",
            "cues",
            "forced_ids",
            "has_cue",
            "sentence_texts",
            "sentences",
        ],
    },
)
