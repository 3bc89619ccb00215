"""The paper: its published numbers, and the authors' data where a user has them.

This room reads what others measured. It measures nothing itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "artefacts": ["published"],
        "traces": ["TRACED", "paper_writer", "traced_problems"],
    },
)
