"""Instruments: what each method of this book reads off one trace, held against known truth.

This room reads with the methods of `answers`, `attention` and `causal`, and says of each whether it
tells when an answer is made from the reasoning. It measures in no way of its own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["DOSES", "GROWTHS", "USEFUL_RHO", "calibration", "dose_values", "growth"],
        "cases": ["Case", "organism_cases", "own_cases", "taught_texts", "untrained_cases"],
        "readings": ["INSTRUMENTS", "Instrument", "read_instruments"],
        "scoreboard": [
            "ALIKE",
            "CONTRASTS",
            "auc",
            "auc_table",
            "pair_aucs",
            "scoreboard",
            "scoreboard_record",
            "value_table",
            "verdict",
        ],
    },
)
