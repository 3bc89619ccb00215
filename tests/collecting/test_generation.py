"""What a row writes depends on nothing but itself, and nothing written is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch

from r2a_utils.collecting import load_problems, teacher_forced
from r2a_utils.collecting.generation import (
    Sampling,
    collect_completions,
    collect_traces,
)
from r2a_utils.texts.completions import read_completions, read_traces
from r2a_utils.tiny.world import write_text


@pytest.fixture(scope="module")
def problems():
    return load_problems("tiny", n=12, seed=3)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_batch_equals_single(tiny, problems, temperature):
    sampling = Sampling(96, temperature=temperature, top_p=0.95, seed=5)
    together = collect_completions(tiny, problems, sampling=sampling, batch_size=12)
    alone = collect_completions(tiny, problems, sampling=sampling, batch_size=1)
    assert [c.completion_ids for c in together] == [c.completion_ids for c in alone]
    assert (
        len({len(c.completion_ids) for c in together}) > 3
    )  # rows left the batch at their own time


def test_greedy_decoding_equals_generate_of_transformers(tiny, problems):
    for completion in collect_completions(tiny, problems[:3], sampling=Sampling(64)):
        prompt = torch.tensor([completion.prompt_ids])
        ids = tiny.hf.generate(prompt, max_new_tokens=64, do_sample=False)[0, prompt.shape[1] :]
        ids = [i for i in ids.tolist() if i != tiny.tokenizer.eos_token_id]
        assert list(completion.completion_ids) == ids


def test_sampling_follows_the_models_probabilities(make_random_model):
    """The first token over many samples, against softmax(logits / temperature)."""
    model = make_random_model("qwen2")
    problem = load_problems("tiny", n=1)
    options = {"samples": 600, "batch_size": 600, "prompt_style": "raw"}
    drawn = collect_completions(model, problem, sampling=Sampling(1, 0.5), **options)
    prompt = torch.tensor([drawn[0].prompt_ids])
    p = (model.hf(prompt).logits[0, -1] / 0.5).softmax(-1)
    first = [(*c.completion_ids, model.tokenizer.eos_token_id)[0] for c in drawn]
    top = p.topk(3)
    for probability, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        error = (probability * (1 - probability) / len(first)) ** 0.5
        assert abs(first.count(token) / len(first) - probability) < 4 * error


def test_top_p_keeps_only_the_smallest_set_of_that_mass(make_random_model):
    model = make_random_model("qwen2")
    problem = load_problems("tiny", n=1)
    drawn = collect_completions(
        model, problem, sampling=Sampling(1, 1.0, 0.2), samples=200, batch_size=200
    )
    p = model.hf(torch.tensor([drawn[0].prompt_ids])).logits[0, -1].softmax(-1)
    order = p.argsort(descending=True)
    n_kept = int((p[order].cumsum(0) < 0.2).sum()) + 1
    first = {(*c.completion_ids, model.tokenizer.eos_token_id)[0] for c in drawn}
    assert first <= set(order[:n_kept].tolist())


def test_banned_tokens_are_never_written(tiny, problems):
    plain = collect_completions(tiny, problems, sampling=Sampling(60))
    banned = max(set(plain[0].completion_ids), key=plain[0].completion_ids.count)
    for completion in collect_completions(
        tiny, problems, sampling=Sampling(60, banned_ids=(banned,))
    ):
        assert banned not in completion.completion_ids


def test_the_token_limit_is_kept_and_told(tiny, problems):
    cut = collect_completions(tiny, problems, sampling=Sampling(5))
    assert all(len(c.completion_ids) == 5 and not c.finished and c.n_tokens == 5 for c in cut)
    with pytest.raises(ValueError, match="was cut at 5 tokens"):
        collect_traces(tiny, problems, sampling=Sampling(5))
    assert collect_traces(tiny, problems, sampling=Sampling(5), on_unfinished="drop") == []


def test_what_is_kept_is_not_made_again(tiny, problems, tmp_path):
    path = tmp_path / "with_reasoning.jsonl"
    sampling = Sampling(40)
    first = collect_completions(tiny, problems[:5], path=path, sampling=sampling)

    def backend(prompts, sampling):
        raise AssertionError(f"{len(prompts)} prompts were asked again")
        yield

    backend.__name__ = "decode"
    again = collect_completions(tiny, problems[:5], path=path, sampling=sampling, backend=backend)
    assert again == first
    more = collect_completions(tiny, problems, path=path, sampling=sampling)
    assert more[:5] == first and len(read_completions(path)) == len(problems)


def test_a_torn_last_line_is_dropped_and_made_again(tiny, problems, tmp_path):
    path = tmp_path / "with_reasoning.jsonl"
    whole = collect_completions(tiny, problems[:4], path=path, sampling=Sampling(40))
    content = path.read_bytes()
    path.write_bytes(content[: -len(content.splitlines()[-1]) // 2])
    assert collect_completions(tiny, problems[:4], path=path, sampling=Sampling(40)) == whole
    assert len(read_completions(path)) == 4


def test_other_settings_are_refused(tiny, problems, tmp_path):
    path = tmp_path / "with_reasoning.jsonl"
    collect_completions(tiny, problems[:2], path=path, sampling=Sampling(20))
    with pytest.raises(ValueError, match="made with other settings"):
        collect_completions(tiny, problems[:2], path=path, sampling=Sampling(20, temperature=0.6))


COLLECT = """
import sys
import torch
from r2a_utils.collecting.generation import Sampling, collect_completions
from r2a_utils.models.loading import load_model
from r2a_utils.collecting import load_problems, teacher_forced
torch.set_num_threads(1)
model = load_model("r2a-tiny", dtype="float32", device="cpu")
problems = load_problems("tiny", n=int(sys.argv[2]), seed=3)
sampling = Sampling(200, temperature=0.7, seed=1)
print("ready", flush=True)
collect_completions(model, problems, path=sys.argv[1], sampling=sampling, batch_size=8)
"""


def test_a_killed_collection_goes_on_without_loss_or_repetition(tiny, tmp_path):
    path = tmp_path / "with_reasoning.jsonl"
    kept = []
    for wanted in (1, 14):  # kill twice, each time when more is in the file
        process = subprocess.Popen([sys.executable, "-c", COLLECT, str(path), "40"])
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(path.read_bytes())
    assert kept[1].startswith(kept[0][: kept[0].rfind(b"\n") + 1])
    problems = load_problems("tiny", n=40, seed=3)
    sampling = Sampling(200, temperature=0.7, seed=1)
    finished = collect_completions(tiny, problems, path=path, sampling=sampling, batch_size=8)
    assert [c.problem_id for c in finished] == [p.id for p in problems]
    assert len(read_completions(path)) == 40
    uninterrupted = collect_completions(tiny, problems, sampling=sampling, batch_size=8)
    assert [c.completion_ids for c in finished] == [c.completion_ids for c in uninterrupted]


def test_teacher_forced_completions_become_traces_in_the_order_of_the_problems(
    tiny, problems, tmp_path
):
    path = tmp_path / "with_reasoning.jsonl"
    backend = teacher_forced(tiny, write_text)
    collect_completions(tiny, problems[::-1], path=path, backend=backend)
    traces = read_traces(path, tiny.tokenizer, problems)
    assert [t.problem_id for t in traces] == [p.id for p in problems]
    assert all(
        t.text.endswith(write_text(p, "with_reasoning"))
        for t, p in zip(traces, problems, strict=True)
    )


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_impossible_sampling_is_refused(options):
    with pytest.raises(ValueError, match=r"must be|is greedy"):
        Sampling(**options)


def test_two_problems_with_one_id_are_refused(tiny, problems):
    with pytest.raises(ValueError, match="same id"):
        collect_completions(tiny, [problems[0], problems[0]])
