"""A reasoning model: what one is here, whatever it was loaded from.

It is a causal language model of transformers, wrapped by nnsight, together with a tokenizer that
can write the tags of its thoughts. Nothing is keyed on a model's name: layers, heads, grouped heads
and head size are read from the model's own configuration. This file loads nothing (`loading.py`)
and opens no trace (`hooks.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import nnsight
import torch
from transformers import PreTrainedTokenizerBase

from r2a_utils.models.gguf import PackedWeights
from r2a_utils.models.verdicts import Verdicts
from r2a_utils.texts.tags import R1_TAGS, Tags

_VERDICTS: WeakKeyDictionary[torch.nn.Module, Verdicts] = WeakKeyDictionary()


@dataclass(frozen=True)
class ReasoningModel:
    """A loaded model: `lm` is nnsight's wrapper, which traces; `hf` the plain transformers module.

    Parameters take no gradient; a gradient with respect to activations needs an activation that
    asks for one. `name` is what pages call it, which is no path; `loaded_from` what it was asked
    for by: a registered name, a hub id, a path. `packed` says what the weights were rounded to,
    where they come from a GGUF file; `tags` are the marks that the model writes around its thought.
    `remote` is what nnsight's traces take: False where the model runs here, or else True, the URL
    of a host, or "local"; `stand_in`, where the weights are on a host, is a narrow model of the
    same family that runs here, on which places are found.
    """

    name: str
    revision: str | None
    lm: nnsight.TransformersModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    packed: PackedWeights | None = None
    tags: Tags = R1_TAGS
    loaded_from: str = ""
    remote: bool | str = False
    stand_in: ReasoningModel | None = field(default=None, repr=False)

    @property
    def here(self) -> ReasoningModel:
        """What may be watched in this process: the model itself, or its stand-in."""
        return self.stand_in or (replace(self, remote=False) if self.remote else self)

    def check_here(self, what: str, instead: str = "load it without `remote`") -> None:
        """Raise ValueError, with a sentence, for what needs the weights where they are not."""
        if self.remote:
            raise ValueError(f"{self.name} runs on a host, and {what} its weights here: {instead}")

    @property
    def hf(self) -> torch.nn.Module:
        return self.lm._module

    @property
    def verdicts(self) -> Verdicts:
        """What was found when the engine's ways were held against this module's own forward."""
        return _VERDICTS.setdefault(self.hf, Verdicts())

    @property
    def n_layers(self) -> int:
        return self.hf.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        return self.hf.config.num_attention_heads

    @property
    def n_kv_heads(self) -> int:
        return getattr(self.hf.config, "num_key_value_heads", None) or self.n_heads

    @property
    def hidden_size(self) -> int:
        return self.hf.config.hidden_size

    @property
    def head_dim(self) -> int:
        return getattr(self.hf.config, "head_dim", None) or self.hidden_size // self.n_heads

    @property
    def vocab_size(self) -> int:
        return self.hf.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where token ids enter; a model spread over several devices has its embedding here."""
        if self.stand_in:
            return torch.device("cpu")  # from where they travel
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end what the model writes: its tokenizer's, and all that its generation
        settings list (chat models often have one for the turn and one for the text).
        """
        listed = self.hf.generation_config.eos_token_id
        listed = listed if isinstance(listed, list) else [listed]
        return frozenset({self.tokenizer.eos_token_id, *listed} - {None})

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all parameters, about 1 GB a second.

        Of weights that are on a host, over the model's hub id and commit.
        """
        if self.stand_in:
            return hashlib.sha256(f"{self.lm.repo_id}@{self.revision}".encode()).hexdigest()
        digest = hashlib.sha256()
        for name, tensor in self.hf.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
