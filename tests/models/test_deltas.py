"""A delta adds to `r2a-tiny` what it was made of, and an organism loads as any model does."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from r2a_utils.models import deltas
from r2a_utils.models.deltas import add_delta, expanded_delta, pack_delta, state_of, write_delta
from r2a_utils.models.loading import load_model
from r2a_utils.models.registry import ORGANISM_MODELS, REGISTRY, UNTRAINED
from r2a_utils.models.weights import weights_digest
from r2a_utils.tiny.organisms import ORGANISMS

KEPT = [name for name in ORGANISM_MODELS if name in REGISTRY]


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (5, 7), "vector": (7,), "same": (3, 3)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_a_delta_leads_to_the_changed_state_within_half_a_step_of_its_rows():
    before, after = state(0), state(1)
    after["same"] = before["same"].clone()
    packed = pack_delta(before, after)
    assert packed.keys() == {"matrix", "matrix.scale", "vector"}
    made = add_delta(before, packed)
    step = (after["matrix"] - before["matrix"]).abs().amax(dim=1, keepdim=True) / 127
    assert ((made["matrix"] - after["matrix"]).abs() <= 0.501 * step).all()
    assert torch.allclose(made["vector"], after["vector"], atol=1e-6)
    assert torch.equal(made["same"], before["same"])


def test_a_row_that_did_not_change_stays_as_it_was():
    before = state(0)
    after = {key: tensor.clone() for key, tensor in before.items()}
    after["matrix"][2] += 1
    made = add_delta(before, pack_delta(before, after))
    rest = [0, 1, 3, 4]
    assert torch.equal(made["matrix"][rest], before["matrix"][rest])


def test_states_of_two_models_are_refused():
    before = state(0)
    with pytest.raises(ValueError, match="two states of one model"):
        pack_delta(before, {"matrix": before["matrix"]})
    with pytest.raises(ValueError, match="belongs to another model: its tensor other"):
        add_delta(before, {"other": torch.zeros(7)})
    with pytest.raises(ValueError, match="its tensor vector does not fit"):
        add_delta(before, {"vector": torch.zeros(8)})


def test_an_organism_that_was_not_trained_says_how_to_train_it(tmp_path, monkeypatch):
    monkeypatch.setattr(deltas, "DELTAS", tmp_path)
    with pytest.raises(FileNotFoundError, match="organisms r2a-hinted` trains it"):
        load_model("r2a-hinted")


def test_another_delta_is_expanded_to_another_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(deltas, "DELTAS", tmp_path / "deltas")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = []
    for change in (0.0, 1.0, 2.0):
        base = state_of("r2a-tiny")
        changed = base | {"model.norm.weight": base["model.norm.weight"] + change}
        write_delta("r2a-hinted", pack_delta(base, changed), tmp_path / "deltas")
        folders.append(expanded_delta("r2a-hinted"))
        assert expanded_delta("r2a-hinted") == folders[-1]
    assert len({*folders}) == len({weights_digest(str(folder)) for folder in folders}) == 3
    loaded = load_file(folders[0] / "model.safetensors")
    assert all(torch.equal(loaded[key], tensor) for key, tensor in base.items())


def test_every_organism_is_known_and_each_kind_is_bundled():
    assert ["r2a-tiny", *ORGANISM_MODELS] == list(ORGANISMS)
    bundled = [name for name, known in REGISTRY.items() if known.hub_id is None]
    assert bundled == ["r2a-tiny", *KEPT, UNTRAINED]
    assert {ORGANISMS[name].kind for name in KEPT} >= {"user", "hinted", "ignorer"}


@pytest.mark.parametrize("name", [*KEPT, UNTRAINED])
def test_an_organism_loads_offline_and_is_a_model_of_its_own(name, tiny):
    model = load_model(name, device="cpu")
    assert model.name == name and model.revision is None
    assert model.hf.config.num_hidden_layers == tiny.n_layers
    assert model.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()
    assert model.weights_sha256 != tiny.weights_sha256
    half = load_model(name, dtype="bfloat16", device="cpu").hf.state_dict()
    whole = model.hf.state_dict()
    assert all(torch.equal(half[key], tensor.bfloat16()) for key, tensor in whole.items())


def test_random_weights_are_the_same_in_every_cache(tmp_path, monkeypatch):
    digests = []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        digests.append(load_model(UNTRAINED, device="cpu").weights_sha256)
    assert digests[0] == digests[1]


def test_no_two_organisms_share_their_weights():
    files = [deltas.DELTAS / f"{name}.safetensors" for name in KEPT]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert len(digests) == len(KEPT)
    assert max(path.stat().st_size for path in files) <= 1_500_000
