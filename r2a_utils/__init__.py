"""R2A: how reasoning reaches the answer, measured in reasoning language models.

Each module is one noun; import names from their module: `from r2a_utils.models import load_model`.
The package imports without a GPU, and importing it loads nothing.
"""

__version__ = "0.1.0"
