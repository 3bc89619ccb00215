"""Models: loading by name, path or hub id, their published shapes and memory, where they are read.

This room knows where a decoder keeps what the engines read. It knows no method of analysis.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoder": ["Architecture"],
        "places": ["architecture", "check_component", "every_head"],
        "hooks": [
            "head_outputs",
            "logit_directions",
            "most_marks",
            "read_attention",
            "read_marks",
            "read_residuals",
        ],
        "deltas": ["add_delta", "expanded_delta", "pack_delta", "state_of"],
        "gguf": ["PackedWeights", "expanded", "find_gguf"],
        "loading": ["load_model", "random_model", "untrained_twin"],
        "reasoning_model": ["ReasoningModel"],
        "memory": [
            "GPU_MEMORY",
            "PROMPT_TOKENS",
            "ROOM",
            "memory_needed",
            "most_rows",
            "token_bytes",
            "writing_seconds",
        ],
        "weights": ["weights_digest"],
        "registry": ["BUNDLED", "REGISTRY", "parameter_count", "shape_of"],
    },
)
