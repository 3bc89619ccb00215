"""Runs: a folder with what a run made, its stages and parameters, and their execution.

This room runs notebooks and knows nothing of what they measure.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "archive": ["ArchiveError", "pack", "read_archive", "unpack"],
        "execution": ["StageFailed"],
        "folder": [
            "Run",
            "RunFolderError",
            "cut_torn_line",
            "json_lines",
            "kept_lines",
            "write_aside",
        ],
        "header": ["Header", "makers", "read_header"],
        "manifest": ["read_manifest", "stale_stages"],
        "parameters": ["ParameterError", "fill", "resolve"],
        "running": [
            "RUNS",
            "StageResult",
            "read_parameters",
            "run_folder",
            "run_stages",
        ],
        "stage": ["NOTEBOOKS", "ROOT", "Stage", "load_stages"],
    },
)
