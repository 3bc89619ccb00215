"""A model whose traces go to a host gives what it gives here, and its host needs no R2A.

`remote="local"` writes each block out, reads it back without this process's modules and runs it;
here the package and its own libraries cannot even be imported while it is read back. Run by
`test_remote.py` in a process of its own, where no checker of types is wrapped about the functions
that go over.
"""

from __future__ import annotations

import importlib.abc
import sys
from dataclasses import replace

import nnsight
import pytest
import torch
from nnsight.intervention.backends.local import LocalSimulationBackend
from nnsight.intervention.envoy import Envoy
from nnsight.schema.request import RequestModel

from r2a_utils.attention.mass import attention_profile, attention_rows, segment_mass
from r2a_utils.causal.interventions import Ablation, Knockout, measure
from r2a_utils.causal.mediation import mediation
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_grid
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.engine.answer_logprobs import answer_scores
from r2a_utils.engine.forward import continue_greedily, replay, run_with_cache, run_with_graph
from r2a_utils.engine.patches import EdgeCut, Patch, PatchedRun
from r2a_utils.engine.plain import cache_plainly, replay_plainly
from r2a_utils.models.loading import load_model, random_model, stand_in
from r2a_utils.models.places import architecture
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode
from r2a_utils.tiny import world

NOT_THERE = ("r2a_utils", "jaxtyping", "lazy_loader", "pandas", "tqdm", "xarray")
IDS = list(range(5, 30))


class Host(importlib.abc.MetaPathFinder):
    """Counts requests, and has none of `NOT_THERE`."""

    def __init__(self, monkeypatch):
        self.requests, read_back, send = (
            0,
            RequestModel.deserialize,
            LocalSimulationBackend.__call__,
        )

        def without_ours(*args, **options):
            sys.meta_path.insert(0, self)
            try:
                return read_back(*args, **options)
            finally:
                sys.meta_path.remove(self)

        def counted(backend, tracer):
            self.requests += 1
            return send(backend, tracer)

        monkeypatch.setattr(RequestModel, "deserialize", staticmethod(without_ours))
        monkeypatch.setattr(LocalSimulationBackend, "__call__", counted)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NOT_THERE:
            raise ModuleNotFoundError(f"the host has no {name}")


@pytest.fixture
def host(monkeypatch):
    return Host(monkeypatch)


@pytest.fixture(scope="module")
def remote(tiny):
    nnsight.register("r2a_utils")
    return replace(tiny, remote="local")


def test_what_is_loaded_for_the_way_to_a_host_is_told_so():
    assert load_model("r2a-tiny", remote="local").remote == "local"
    assert not load_model("r2a-tiny").remote


def test_masses_are_those_of_here(tiny, remote, host, world_traces):
    here, there = (segment_mass(model, world_traces[:6]) for model in (tiny, remote))
    assert host.requests >= 1
    assert float(abs(here - there).max()) < 1e-6


def test_rows_are_those_of_here(tiny, remote, host, world_traces):
    heads = [(1, 0), (3, 2)]
    here, there = (attention_rows(model, world_traces[0], heads) for model in (tiny, remote))
    assert host.requests >= 1
    assert float(abs(here - there).max()) < 1e-6
    here, there = (attention_profile(model, world_traces[0]) for model in (tiny, remote))
    assert float(abs(here["mass"] - there["mass"]).max()) < 1e-6


def test_a_grid_is_one_request_and_equals_that_of_here(tiny, remote, host):
    cache = cache_plainly(tiny, IDS, ("z",), range(20, 25))
    runs = [
        PatchedRun((Patch(name, layer, 5, cache.activations[name][layer][9][None]),))
        for name in ("resid", "z")
        for layer in range(tiny.n_layers)
    ]
    runs += [
        PatchedRun((), (EdgeCut(3, range(20, 25), range(3, 9), (1, 4), kind),))
        for kind in ("renormalised", "zeroed", "mean")
    ]

    def reduce(logits):
        return answer_scores(logits[:, :2], ((7, 9),))

    there = run_with_cache(remote, IDS, ("z",), range(20, 25))
    for mine, theirs in zip(cache.activations["z"], there.activations["z"], strict=True):
        assert torch.equal(mine, theirs)
    before = host.requests
    found = replay(remote, there, runs, reduce)
    assert host.requests == before + 1
    assert torch.allclose(found, replay_plainly(tiny, cache, runs, reduce), atol=1e-6)


def test_knockout_and_ablation_are_those_of_here(tiny, remote, host, world_traces):
    cuts = [
        Knockout(),
        Knockout(kind="mean"),
        Knockout(heads=((3, 1),)),
        Ablation(((3, 1), (2, 0))),
    ]
    here, there = (measure(model, world_traces[0], cuts) for model in (tiny, remote))
    assert host.requests
    assert (here["after"] - there["after"]).abs().max() < 1e-4
    assert (here["after"] - here["before"]).abs().max() > 0.1


def test_what_is_written_is_that_of_here_in_one_request(tiny, remote, host):
    cache = cache_plainly(tiny, IDS)
    here = continue_greedily(tiny, run_with_cache(tiny, IDS), [None], 6)
    assert continue_greedily(remote, cache, [None], 6) == here
    assert host.requests == 1


def test_no_module_within_the_model_is_traced_for_a_host(
    tiny, remote, host, world_traces, monkeypatch
):
    """A trace of one would run here without a word: the host knows the whole model alone."""
    traced, trace = [], Envoy.trace

    def watched(envoy, *args, **options):
        traced.append(envoy.path)
        return trace(envoy, *args, **options)

    monkeypatch.setattr(Envoy, "trace", watched)
    segment_mass(remote, world_traces[:2])
    measure(remote, world_traces[0], [Knockout()])
    assert traced and set(traced) == {remote.lm.path}


def test_nothing_comes_back_that_nobody_asked_for(tiny, remote, host):
    asked = {(): set(), ("resid",): {"resid"}, ("z", "resid"): {"z", "resid"}}
    for components, names in asked.items():
        there = run_with_cache(remote, IDS, components, (20, 24))
        here = run_with_cache(tiny, IDS, components, (20, 24))
        assert set(there.activations) == names
        for name in names:
            for mine, theirs in zip(here.activations[name], there.activations[name], strict=True):
                assert torch.allclose(mine, theirs, atol=1e-5)
        assert torch.allclose(here.logits, there.logits, atol=1e-4)
        assert sum(part.numel() for part in (*there.keys, *there.values)) == 0


def test_thoughts_and_grids_take_what_they_asked_for(tiny, remote, host):
    pairs = [
        tuple((problem, as_written(tiny, problem)) for problem in sides)
        for sides in world.contrast_problems(4)[::2]
    ]
    here, there = (mediation(model, pairs, by_layer=False) for model in (tiny, remote))
    assert host.requests and len(here.pairs)
    assert abs(here.together - there.together).max() < 1e-5
    pair = ContrastPair.from_traces(*(trace for _, trace in pairs[0]))
    for component in ("resid", "z"):
        grids = [
            patch_grid(model, pair, [pair.differing_positions[-1]], component=component, min_gap=0)
            for model in (tiny, remote)
        ]
        assert abs(grids[0] - grids[1]).max() < 1e-5


def as_written(model, problem):
    ids = render_prompt(model.tokenizer, problem.question)
    ids += encode(model.tokenizer, world.write_text(problem, "with_reasoning"))
    return Trace.from_ids(ids, model.tokenizer, problem_id=problem.id, meta=problem.meta)


def test_what_needs_the_weights_here_says_so(remote):
    with pytest.raises(ValueError, match="runs on a host, and a gradient needs its weights here"):
        run_with_graph(remote, IDS)
    with pytest.raises(ValueError, match=r'take given texts \(source="written"\) or a server'):
        collect_traces(remote, world.held_out_problems(1, 0))


FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gpt_oss", "mistral")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_places_of_a_stand_in_are_those_of_the_model(family, tokenizer):
    shape = {"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 3}
    sizes = {"hidden_size": 128, "intermediate_size": 200, "vocab_size": 1000}
    model = random_model(family, tokenizer, **shape, **sizes)
    narrow = stand_in(model, model.hf.config)
    assert narrow.hidden_size < model.hidden_size
    ours, theirs = architecture(model), architecture(narrow)
    assert ours.attention_calls == theirs.attention_calls and ours.shapes == theirs.shapes
    assert (ours.windows, ours.asks, ours.unread) == (theirs.windows, theirs.asks, theirs.unread)
    for name in ("layers", "attention", "out_projections", "mlps"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert [e and e.path for e in mine] == [e and e.path for e in other]
    for mine, other in zip(ours.projections, theirs.projections, strict=True):
        assert mine.keys() == other.keys()
        for part in mine:
            assert mine[part].module.path == other[part].module.path
            columns = [p.columns is None or p.columns.tolist() for p in (mine[part], other[part])]
            assert columns[0] == columns[1]
