"""TransformerLens on our models, for the comparisons: it is no dependency of R2A."""

from __future__ import annotations

import importlib.util
import tempfile

from transformers import AutoTokenizer

from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.registry import REGISTRY

INSTALLED = importlib.util.find_spec("transformer_lens") is not None


def bridge(model: ReasoningModel):
    """A `TransformerBridge` around the model's own weights."""
    from transformer_lens.model_bridge import TransformerBridge

    # It loads the tokenizer once more, from its folder.
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save_pretrained(folder)
        return TransformerBridge.boot_transformers(
            REGISTRY[model.name.removeprefix("random ")].hub_id,
            hf_model=model.hf,
            tokenizer=AutoTokenizer.from_pretrained(folder),
            device=str(model.device),
        )
