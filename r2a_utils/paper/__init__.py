"""The paper: its published numbers, and the authors' data where a user has them.

This room reads what others measured. It measures nothing itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "artefacts": [
            "CONDITIONS",
            "DATA_VARIABLE",
            "END_OF_SENTENCE",
            "MODEL_NAMES",
            "TRACED",
            "data_folder",
            "load_originals",
            "load_patching_case",
            "patching_cases",
            "load_question_pairs",
            "load_segment_mass",
            "load_traces",
            "mass_files",
            "paper_writer",
            "traced_problems",
        ],
        "download": ["fetch", "originals"],
        "printed": ["discordant_pairs", "published", "published_findings"],
    },
)
