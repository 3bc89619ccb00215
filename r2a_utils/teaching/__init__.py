"""Teaching: copies of the notebooks to work in, and checks that name a mistake.

This room hands out and checks. Exercises are written in the notebooks, and what is right is
computed by the rooms that measure it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "handout": ["Workshop", "WorkshopError", "workshop_copy", "write_workshop"],
        "lab": ["open_lab", "refresh"],
        "notebook_copies": ["copy_of", "is_edited", "write_copy"],
    },
)
