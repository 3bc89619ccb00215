"""By which engine a model is measured is asked once for its weights, and kept with the run."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from r2a_utils.attention.weights import attention_rows
from r2a_utils.engine import oracle
from r2a_utils.engine.forward import engine_of
from r2a_utils.engine.oracle import marks_fault
from r2a_utils.models import places
from r2a_utils.runs.folder import Run


@pytest.fixture
def run(tmp_path):
    return Run.open(tmp_path)


def kept(run):
    return run.read_record("model")["verdicts"]


def asked_again(model):
    """Whether the model runs whole forwards to find its engine."""
    with patch.object(oracle, "cache_plainly", side_effect=InterruptedError):
        try:
            engine_of(model, 20)
        except InterruptedError:
            return True
    return False


def test_a_verdict_says_what_was_compared_how_far_off_it_was_and_what_follows(
    run, make_random_model
):
    fast, plain = (make_random_model(family) for family in ("llama", "falcon_h1"))
    run.record_model(fast)
    assert kept(run) == {}
    assert engine_of(fast, 20) == "fast" and marks_fault(fast) == ""
    for verdict in (kept(run)["replay"], kept(run)["marks"]):
        assert verdict["engine"] == "fast" and verdict["fault"] == ""
        assert 0 <= verdict["error"] <= verdict["tolerance"] < 1e-3
    run.record_model(plain)
    assert engine_of(plain, 20) == "plain"
    verdict = kept(run)["replay"]
    assert verdict["engine"] == "plain" and verdict["fault"] and "logits" in verdict["compared"]


def test_a_later_stage_takes_it_from_the_run_for_the_same_weights_alone(run, make_random_model):
    first, same, other = (make_random_model("llama", seed=seed) for seed in (1, 1, 2))
    run.record_model(first)
    assert asked_again(first)
    engine_of(first, 20)
    assert not asked_again(first)
    run.record_model(other)
    assert asked_again(other)
    run.record_model(first)
    run.record_model(same)
    assert not asked_again(same)


def test_other_code_or_another_kernel_is_asked_anew(run, make_random_model):
    first, same = (make_random_model("llama", seed=1) for _ in range(2))
    run.record_model(first)
    engine_of(first, 20)
    run.record_model(same)
    with patch.object(oracle, "_code", lambda: "other"):
        assert asked_again(same)
    same.hf.set_attn_implementation("eager")
    assert asked_again(same)


def test_what_attention_is_told_and_nobody_knows_is_never_swallowed(make_random_model):
    model = make_random_model("llama")

    def tell(layer, given, named):
        return given, named | {"an_option_of_next_year": 2.0}

    for layer in model.hf.model.layers:
        layer.register_forward_pre_hook(tell, with_kwargs=True)
    places._ARCHITECTURES.pop(model.hf, None)  # as if it had been built so
    assert engine_of(model, 20) == "plain"
    attention_rows(model, range(20, 40), [(0, 0)])
    for what in ("replay", "rows"):
        assert "asks for an_option_of_next_year" in model.verdicts[what]["fault"]


def test_what_stops_the_fast_engine_is_told_and_what_nobody_expects_is_raised(make_random_model):
    def stopping(error):
        def fast(*_):
            raise error

        return lambda: oracle.replay_fault(make_random_model("llama"), fast)

    assert stopping(KeyError("no such mask"))() == "it stops with: 'no such mask'"
    assert stopping(TypeError())() == "it stops with: TypeError"
    for error in (torch.OutOfMemoryError("too large"), OSError("no disk")):
        with pytest.raises(type(error)):
            stopping(error)()
