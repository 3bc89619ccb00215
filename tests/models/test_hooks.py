"""Inside a model: places are found by what passes through them, and reading changes nothing."""

from __future__ import annotations

import pytest
import torch

from r2a_utils.models.hooks import read_attention, read_marks
from r2a_utils.models.places import architecture, check_component

IDS = torch.tensor([[5, 9, 7, 200, 31, 9, 77, 5, 9, 7, 200, 30]])


def test_places_are_found_in_every_architecture(any_model):
    places = architecture(any_model)
    assert len(places.layers) == len(places.attention) == any_model.n_layers
    for layer, attention, projection in zip(
        places.layers, places.attention, places.out_projections, strict=True
    ):
        assert attention.path.startswith(layer.path)
        assert projection.path.startswith(attention.path)
    assert places.embedding._module is any_model.hf.get_input_embeddings()
    assert places.unembedding._module is any_model.hf.lm_head
    assert architecture(any_model) is places


def test_what_attention_takes_and_gives_fits_together(any_model):
    """z = softmax(scaling · q kᵀ + mask) v, with q and k as the model itself uses them."""
    groups = any_model.n_heads // any_model.n_kv_heads

    def recompute(layer, query, key, value, mask, scaling, z):
        scores = query @ key.repeat_interleave(groups, 1).mT * scaling
        causal = torch.ones(scores.shape[-2:]).tril().bool()
        scores = scores.masked_fill(~(causal if mask is None else mask), -torch.inf)
        plain = scores.softmax(-1) @ value.repeat_interleave(groups, 1)
        return (plain.transpose(1, 2) - z).abs().max()

    errors = read_attention(any_model, IDS, recompute, range(any_model.n_layers))
    assert len(errors) == any_model.n_layers
    assert max(errors) < 1e-5


def test_queries_are_read_after_the_rotary_embedding(make_random_model):
    """The same token at two positions has the same projection; the rotation tells them apart."""
    model = make_random_model("llama", num_hidden_layers=1)
    [query] = read_attention(model, IDS, lambda layer, query, *rest: query.clone(), [0])
    first, second = query[0, :, 1], query[0, :, 5]
    assert IDS[0, 1] == IDS[0, 5]
    assert not torch.allclose(first, second, atol=1e-2)
    torch.testing.assert_close(first.norm(dim=-1), second.norm(dim=-1))


def test_layers_above_the_last_one_wanted_do_not_run(make_random_model):
    model, ran = make_random_model("qwen2"), []
    architecture(model)
    hooks = [
        model.hf.model.layers[i].mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i in range(model.n_layers)
    ]
    read_attention(model, IDS, lambda layer, *rest: torch.tensor(layer), [0, 1])
    for hook in hooks:
        hook.remove()
    assert ran == [0]


def test_reading_marks_leaves_the_forward_pass_as_it_is(any_model):
    """What the last layer receives while marks ride along is what it receives without them."""
    read_marks(any_model, IDS, torch.ones(1, IDS.shape[1], 3), lambda marked: marked)  # asks once
    received = []
    last = any_model.hf.model.layers[-1]
    hook = last.register_forward_pre_hook(lambda module, args: received.append(args[0].clone()))
    with torch.no_grad():
        any_model.hf(IDS)
        read_marks(any_model, IDS, torch.ones(1, IDS.shape[1], 3), lambda marked: marked)
        any_model.hf(IDS)
    hook.remove()
    plain, marked, after = received
    assert (marked - plain).abs().max() < 1e-6 * plain.abs().max()
    assert torch.equal(after, plain)


def test_all_marks_one_reads_the_whole_row(any_model):
    marks = torch.ones(1, IDS.shape[1], 1)
    for marked in read_marks(any_model, IDS, marks, lambda marked: marked):
        assert marked.shape == (1, any_model.n_heads, IDS.shape[1], 1)
        torch.testing.assert_close(marked, torch.ones_like(marked), rtol=0, atol=1e-6)


# What each family calls its parts: the out projection, the MLP, the module of q, k and v.
NAMES = {
    "gpt2": ("c_proj", "mlp", "c_attn", "c_attn", "c_attn"),
    "gpt_neox": ("dense", "mlp", *("query_key_value",) * 3),
    "opt": ("out_proj", "fc2", "q_proj", "k_proj", "v_proj"),
    "phi": ("dense", "mlp", "q_proj", "k_proj", "v_proj"),
    "phi3": ("o_proj", "mlp", "qkv_proj", "qkv_proj", "qkv_proj"),
    "falcon_h1": ("o_proj", "feed_forward", "q_proj", "k_proj", "v_proj"),
    "lfm2": ("out_proj", "feed_forward", "q_proj", "k_proj", "v_proj"),
    "qwen3_next": ("o_proj", "mlp", "q_proj", "k_proj", "v_proj"),
}


@pytest.mark.parametrize("family", NAMES)
def test_places_are_found_whatever_they_are_called(make_random_model, family):
    places = architecture(make_random_model(family))
    layer = places.attending[0]
    found = [places.out_projections[layer], places.mlps[layer]]
    found += [places.projections[layer][name].module for name in "qkv"]
    assert [envoy.path.split(".")[-1] for envoy in found] == list(NAMES[family])


def test_layers_that_attend_are_told_from_those_that_do_not(make_random_model):
    for family, attending in (("lfm2", (1,)), ("qwen3_next", (3,)), ("falcon_h1", (0, 1, 2))):
        assert architecture(make_random_model(family)).attending == attending


def test_a_decoder_without_attention_is_refused(make_random_model):
    with pytest.raises(ValueError, match=r"MambaForCausalLM\) has no attention that can be read"):
        architecture(make_random_model("mamba"))


def test_what_heads_share_is_refused_by_name(make_random_model):
    model = make_random_model("deepseek_v3")
    for name in ("resid", "q", "v", "z", "attn_out", "mlp_out"):
        check_component(model, name)
    with pytest.raises(ValueError, match=r"k cannot be patched, since it is made of several proj"):
        check_component(model, "k")
