"""What a row writes depends on nothing but itself, and nothing written is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from families.zoo import FAMILIES, plain_model

from r2a_utils.collecting import (
    Sampling,
    collect_completions,
    collect_traces,
    kept_completions,
    load_problems,
    teacher_forced,
)
from r2a_utils.collecting.decoding import LEAVE_EVERY, Prompt, decode
from r2a_utils.models import load_model
from r2a_utils.texts import Problem, encode, held, read_completions, read_traces
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


def test_what_all_prompts_begin_with_is_read_once(make_random_model):
    model, read = make_random_model("qwen2"), []
    model.hf.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: read.append(tuple(inputs[0].shape))
    )
    start = (1, *range(20, 80))
    prompts = [Prompt((*start, *range(80, 85 + i)), Problem("", "", ""), "", i) for i in range(4)]
    prompts.append(Prompt(start, Problem("", "", ""), "", 4))  # of which one token is left to read
    sampling = Sampling(40, temperature=1.0, seed=5)
    together = sorted(decode(model, prompts, sampling, len(prompts)))
    assert read[:2] == [(1, len(start) - 1), (len(prompts), 1 + 8)]
    assert together == sorted(decode(model, prompts, sampling, 1))


@pytest.mark.parametrize("name", ["qwen3_next", "qwen3_5_text", "falcon_h1", "lfm2", "nemotron_h"])
def test_rows_leave_the_batch_of_a_model_that_keeps_other_states(name, tokenizer, tmp_path):
    """Cache layers of a hybrid hold convolutions and recurrent states beside keys and values."""
    [family] = [family for family in FAMILIES if family.name == name]
    plain_model(family).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float32", device="cpu")
    model.hf.generation_config.eos_token_id = [*range(100, 120)]  # rows end early and late
    prompts = [Prompt((1, *range(40, 44 + i)), Problem("", "", ""), "", i) for i in range(9)]
    sampling = Sampling(3 * LEAVE_EVERY, temperature=1.0, seed=2)
    ids = [
        [row.ids for row in sorted(decode(model, prompts, sampling, batch_size))]
        for batch_size in (len(prompts), 1)
    ]
    assert ids[0] == ids[1]
    lengths = [len(row) for row in ids[0]]
    assert min(lengths) < LEAVE_EVERY < max(lengths)  # some had left, and others went on


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


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_thought_is_closed_after_so_many_tokens_and_the_model_goes_on(
    tiny, problems, temperature
):
    sampling = Sampling(200, temperature=temperature, seed=2, close_after=20)
    plain = collect_completions(tiny, problems, sampling=replace(sampling, close_after=None))
    together = collect_completions(tiny, problems, sampling=sampling, batch_size=12)
    assert together == collect_completions(tiny, problems, sampling=sampling, batch_size=1)
    close = encode(tiny.tokenizer, tiny.tags.close)
    for free, closed in zip(plain, together, strict=True):
        early = "</think>" in tiny.tokenizer.decode(free.completion_ids[:20])
        assert closed.closed_by_us is not early and not free.closed_by_us
        if early:
            assert closed.completion_ids == free.completion_ids
        else:
            assert closed.completion_ids[:20] == free.completion_ids[:20]
            assert set(close) <= set(closed.completion_ids[20:24])
            assert len(closed.completion_ids) > 24  # it goes on
    assert any(c.closed_by_us for c in together)


def test_a_thought_that_the_model_ends_is_closed_and_answered(
    make_random_model, instruct_tokenizer, problems
):
    """As an instruct model does that ends its turn; its tag is three tokens, the last merges."""
    model = make_random_model("qwen2", tokenizer=instruct_tokenizer)
    spelt = set(encode(instruct_tokenizer, "\n</think>\n\n"))
    ends = [i for i in range(0, len(instruct_tokenizer), 12) if i not in spelt]
    chat = deepcopy(model.hf.generation_config)
    chat.eos_token_id = ends
    sampling = Sampling(80, temperature=1.0, seed=3)
    options = {"prompt_style": "raw", "samples": 3}
    with patch.object(model.hf, "generation_config", chat):
        free = collect_completions(model, problems, sampling=sampling, **options)
        sampling = replace(sampling, close_after=40)
        closed = collect_completions(model, problems, sampling=sampling, **options)
        assert closed == collect_completions(
            model, problems, sampling=sampling, batch_size=1, **options
        )
    ended = [(a, b) for a, b in zip(free, closed, strict=True) if len(a.completion_ids) < 40]
    assert len(ended) > 20
    for before, after in ended:
        assert after.closed_by_us
        assert after.text.startswith(before.text.removesuffix("\n") + "\n</think>\n\n")
    answered = [after for _, after in ended if after.text.partition("</think>")[2].strip()]
    assert answered and all(
        c.to_trace(instruct_tokenizer).segment_text("end_think").startswith("</think>")
        for c in answered
        if c.finished and c.text.partition("</think>")[0].strip()
    )


@pytest.mark.parametrize("close_after", [0, 30, 31])
def test_a_thought_is_closed_before_the_limit_or_not_at_all(close_after):
    with pytest.raises(ValueError, match="below max_new_tokens, 30"):
        Sampling(30, close_after=close_after)


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
    assert more[:5] == first and len(read_completions(path, problems)) == len(problems)


def test_a_torn_last_line_is_dropped_and_made_again(tiny, problems, tmp_path):
    path = tmp_path / "with_reasoning.jsonl"
    whole = collect_completions(tiny, problems[:4], path=path, sampling=Sampling(40))
    content = path.read_bytes()
    path.write_bytes(content[: -len(content.splitlines()[-1]) // 2])
    assert collect_completions(tiny, problems[:4], path=path, sampling=Sampling(40)) == whole
    assert len(read_completions(path, problems[:4])) == 4


class Writer:
    """A back end that writes what it is asked for, without a model, and notes the problems."""

    def __init__(self, text="Hm.\n</think>\n\n{}"):
        self.text, self.asked = text, []

    def __call__(self, prompts, sampling):
        self.asked += [(prompt.problem.id, prompt.sample) for prompt in prompts]
        for index, prompt in enumerate(prompts):
            words = self.text.format(prompt.problem.question)
            yield index, tuple(map(ord, words)), True

    __name__ = "writer"


@pytest.fixture
def ask(tiny, tmp_path):
    """`ask(problems)` collects into one file and returns what had to be written for it."""
    path = tmp_path / "with_reasoning.jsonl"

    def ask(problems, model=tiny, **options):
        writer = Writer()
        found = collect_completions(model, problems, path=path, backend=writer, **options)
        asked = [(p.id, s) for p in problems for s in range(options.get("samples", 1))]
        assert [(c.problem_id, c.sample) for c in found] == asked
        # The file holds what was asked for and nothing else, whoever reads it and however.
        kept = [json.loads(line) for line in path.read_text().splitlines()]
        assert sorted((row["problem_id"], row["sample"]) for row in kept) == sorted(asked)
        assert set(read_completions(path, problems)) == set(found)
        return writer.asked

    ask.path = path
    return ask


QUESTIONS = [Problem(str(i), question) for i, question in enumerate(("1+1?", "1+2?", "1+3?"))]


def test_an_edited_question_is_asked_again_and_its_old_answer_kept_for_later(ask):
    edited = [QUESTIONS[0], Problem("1", "2+2?"), QUESTIONS[2]]
    assert len(ask(QUESTIONS)) == 3
    assert ask(edited) == [("1", 0)]
    assert ask(QUESTIONS) == ask(edited) == ask(edited) == []


def test_ids_that_shift_take_no_other_problems_answer(ask):
    ask(QUESTIONS)
    shifted = [Problem(str(i), q) for i, q in enumerate(("0+1?", "1+1?", "1+2?", "1+3?"))]
    assert len(ask(shifted)) == 4


def test_fewer_problems_fewer_samples_and_back_again(ask):
    assert len(ask(QUESTIONS, samples=2)) == 6
    assert ask(QUESTIONS) == ask(QUESTIONS[:1]) == ask(QUESTIONS[1:], samples=2) == []
    assert ask(QUESTIONS, samples=2) == []


def test_other_prompts_and_other_sampling_are_written_anew_and_the_first_come_back(ask):
    ask(QUESTIONS)
    for other in ({"prompt_style": "raw"}, {"sampling": Sampling(20, temperature=0.6)}):
        assert len(ask(QUESTIONS, **other)) == 3
    assert ask(QUESTIONS) == []


def test_lines_of_two_processes_count_once(ask):
    ask(QUESTIONS)
    ask.path.write_text(ask.path.read_text() * 2)
    assert len(read_completions(ask.path, QUESTIONS)) == 3
    assert ask(QUESTIONS) == []


def test_a_kill_between_the_two_files_loses_nothing(ask):
    ask(QUESTIONS)
    before = ask.path.read_bytes()
    ask(QUESTIONS[:1])  # the others now stand beside
    ask.path.write_bytes(before)  # as if the kill had come before this file was written
    assert ask(QUESTIONS[:1]) == ask(QUESTIONS) == []


def test_the_weights_count_and_not_their_folder(ask, tiny, tmp_path):
    def saved(folder):
        tiny.hf.save_pretrained(tmp_path / folder)
        tiny.tokenizer.save_pretrained(tmp_path / folder)
        return load_model(tmp_path / folder, dtype="float32", device="cpu")

    assert len(ask(QUESTIONS, model=saved("a"))) == 3
    assert ask(QUESTIONS, model=saved("b")) == []
    rounded = load_model(tmp_path / "b", dtype="bfloat16", device="cpu")
    assert len(ask(QUESTIONS, model=rounded)) == 3
    other = load_model(tmp_path / "a", dtype="float32", device="cpu")
    other.hf.model.norm.weight.add_(1)
    other.hf.save_pretrained(tmp_path / "a")
    changed = load_model(tmp_path / "a", dtype="float32", device="cpu")
    assert len(ask(QUESTIONS, model=changed)) == 3
    config = json.loads((tmp_path / "b/config.json").read_text())
    config["rms_norm_eps"] = 10 * config["rms_norm_eps"]  # other calculations with the same weights
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    changed = load_model(tmp_path / "b", dtype="float32", device="cpu")
    assert len(ask(QUESTIONS, model=changed)) == 3


def test_a_file_belongs_to_one_process(ask, tiny):
    with held(ask.path), pytest.raises(RuntimeError, match="another process is writing"):
        ask(QUESTIONS)
    ask(QUESTIONS)


def test_what_is_kept_is_taken_only_as_it_was_asked(ask, tiny):
    ask(QUESTIONS)
    before = ask.path.read_bytes()
    options = {"path": ask.path, "backend": Writer()}
    found = kept_completions(tiny, QUESTIONS[:2], **options)
    assert [c.problem_id for c in found] == ["0", "1"]
    for other in ({"sampling": Sampling(7)}, {"samples": 2}, {"prompt_style": "raw"}):
        with pytest.raises(ValueError, match="asked in another way"):
            kept_completions(tiny, QUESTIONS[:2], **options, **other)
    assert ask.path.read_bytes() == before


def test_a_file_that_is_not_what_was_asked_is_not_read(ask, tiny):
    with pytest.raises(FileNotFoundError, match="run stage 01"):
        read_completions(ask.path, QUESTIONS)
    ask(QUESTIONS[:2])
    with pytest.raises(ValueError, match="lacks completions of 1 of 3 problems, as of '2'"):
        read_traces(ask.path, tiny.tokenizer, QUESTIONS)
    first = ask.path.read_text()
    ask(QUESTIONS[:2], prompt_style="raw")
    ask.path.write_text(first + ask.path.read_text())
    with pytest.raises(ValueError, match="two completions of problem '0'"):
        read_completions(ask.path, QUESTIONS[:2])
    ask.path.write_text(first + '{"problem_id": 1}\n')
    with pytest.raises(ValueError, match="line 3, is no completion: remove the line"):
        read_completions(ask.path, QUESTIONS[:2])


def test_every_end_token_that_the_generation_settings_list_ends_a_text(tiny, problems):
    [plain] = collect_completions(tiny, problems[:1], sampling=Sampling(60))
    end = plain.completion_ids[20]
    chat = deepcopy(tiny.hf.generation_config)
    chat.eos_token_id = [tiny.tokenizer.eos_token_id, end]
    with patch.object(tiny.hf, "generation_config", chat):
        [ended] = collect_completions(tiny, problems[:1], sampling=Sampling(60))
    assert ended.finished and end not in ended.completion_ids
    assert ended.completion_ids == plain.completion_ids[: plain.completion_ids.index(end)]


COLLECT = """
import sys
import torch
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
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
    # What is asked afterwards is less, and one question has been edited since: nothing of the old
    # one is taken, nothing of the others is made again.
    problems = load_problems("tiny", n=40, seed=3)
    first = json.loads(kept[1].splitlines()[0])["problem_id"]
    problems = [replace(p, question=p.question + "!") if p.id == first else p for p in problems]
    problems = [p for p in problems if p.id == first] + problems[:30]
    problems = list({p.id: p for p in problems}.values())
    sampling = Sampling(200, temperature=0.7, seed=1)
    finished = collect_completions(tiny, problems, path=path, sampling=sampling, batch_size=8)
    assert [c.problem_id for c in finished] == [p.id for p in problems]
    assert path.read_bytes().count(b"\n") == len(problems)
    uninterrupted = collect_completions(tiny, problems, sampling=sampling, batch_size=8)
    assert finished == uninterrupted
    whole = [json.loads(line)["completion_ids"] for line in kept[1].splitlines()[1:-1]]
    there = path.with_suffix(".unused.jsonl").read_text() + path.read_text()
    again = [json.loads(line)["completion_ids"] for line in there.splitlines()]
    assert all(ids in again for ids in whole)  # what the killed processes wrote is not lost


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


def test_another_template_makes_the_texts_of_a_kept_file_anew(tmp_path, tiny):
    """Even of a template that treats the asked questions alike."""
    path, [problem] = tmp_path / "kept.jsonl", QUESTIONS[:1]
    options = {"path": path, "sampling": Sampling(4)}
    [first] = collect_completions(tiny, [problem], **options)
    own = tiny.tokenizer.chat_template
    try:
        tiny.tokenizer.chat_template = own + "{% if '2 + 2' in messages[0].content %}!{% endif %}"
        [second] = collect_completions(tiny, [problem], **options)
    finally:
        tiny.tokenizer.chat_template = own
    assert first.prompt_ids == second.prompt_ids and first.settings != second.settings
