"""The authors' data are read from a folder, as tables and as texts that another model reads."""

from __future__ import annotations

import json
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from r2a_utils import paper
from r2a_utils.answers import regrading
from r2a_utils.answers.comparison import funnel, paired_comparison
from r2a_utils.collecting import Sampling, backend_of, collect_completions, load_problems
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import CONDITIONS, SEGMENTS, encode

WITH, WITHOUT = "with_reasoning", "without_reasoning"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


@pytest.fixture
def folder(paper_data) -> Path:
    return paper_data


def test_a_missing_folder_or_file_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("R2A_PAPER_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set R2A_PAPER_DATA"):
        paper.load_traces()
    with pytest.raises(FileNotFoundError, match="is not there"):
        paper.load_traces(tmp_path / "none")
    monkeypatch.setenv("R2A_PAPER_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"math500_greedy_traces\.parquet is not in"):
        paper.load_traces()
    with pytest.raises(ValueError, match="choose one of with_reasoning, without_reasoning"):
        paper.load_segment_mass(tmp_path, "qwen-7B", "withR")
    with pytest.raises(FileNotFoundError, match=r"no segment_attention_\*_withR\.npz is in"):
        paper.mass_files(tmp_path)


def test_models_are_found_by_their_files(tmp_path):
    for name in ("llama-8B_withR", "llama-8B_withoutR", "other_withR"):
        (tmp_path / f"segment_attention_{name}.npz").touch()
    with pytest.raises(FileNotFoundError, match=r"segment_attention_other_withoutR\.npz is not in"):
        paper.mass_files(tmp_path)
    (tmp_path / "segment_attention_other_withR.npz").unlink()
    [(alias, files)] = paper.mass_files(tmp_path).items()
    assert alias == "llama-8B"
    assert [file.name for file in files] == [
        "segment_attention_llama-8B_withR.npz",
        "segment_attention_llama-8B_withoutR.npz",
    ]


def test_the_folder_may_come_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("R2A_PAPER_DATA", str(folder))
    assert len(paper.load_traces()) == 400


def test_the_authors_traces_are_well_formed(folder):
    traces = paper.load_traces(folder)
    counts = traces.groupby(["model_alias", "condition"]).size()
    assert counts.tolist() == [100] * 4
    assert set(traces["condition"]) == {WITH, WITHOUT}
    assert (traces["response"].str.count("</think>") == 1).all()
    assert traces["is_answer_correct"].isin([0, 1]).all()


def test_our_grades_agree_with_the_authors_and_each_difference_is_reviewed(folder):
    traces = regrading.regraded_traces(folder)
    agree = traces["correct"] == traces["is_answer_correct"].astype(bool)
    assert agree.mean() >= 0.96
    # The table that comes with the package is the one that the traces give.
    differences = regrading.grading_disagreements(folder)
    assert differences.to_dict("records") == regrading.reviewed_grades()["disagreements"]
    assert agree.sum() == regrading.reviewed_grades()["agreeing"] == 400 - len(differences)
    # Worked out by hand, case by case: every one is an equal answer that was marked wrong.
    assert (differences["who_is_right"] == "R2A").all() and (differences["because"] != "").all()
    assert (differences["authors"] == "wrong").all() and (differences["r2a"] == "right").all()


def test_the_regraded_counts_are_those_of_the_traces(folder):
    traces = regrading.regraded_traces(folder)
    for row in regrading.reviewed_grades()["rows"]:
        of_model = traces[traces["model_alias"].map(paper.MODEL_NAMES) == row["model"]]
        for grader, column in (("authors", "is_answer_correct"), ("regraded", "correct")):
            grades = of_model.pivot(index="problem_id", columns="condition", values=column)
            with_, without = grades[WITH].astype(bool), grades[WITHOUT].astype(bool)
            assert len(grades) == row["n"]
            assert row[grader] == {
                WITH: with_.sum(),
                WITHOUT: without.sum(),
                "only_with": (with_ & ~without).sum(),
                "only_without": (without & ~with_).sum(),
            }


def test_an_unreviewed_difference_is_called_so(folder, monkeypatch):
    monkeypatch.setattr(regrading, "grade_math", lambda answer, gold: False)
    differences = regrading.grading_disagreements(folder)
    assert len(differences) == 302  # all that the authors marked right
    assert set(differences["who_is_right"]) == {"not reviewed"}


@pytest.mark.parametrize(("alias", "heads"), [("qwen-1p5B", 12), ("qwen-7B", 28)])
@pytest.mark.parametrize("condition", [WITH, WITHOUT])
def test_segment_masses_have_the_layout_of_our_own(folder, alias, heads, condition):
    mass = paper.load_segment_mass(folder, alias, condition)
    assert mass.dims == ("trace", "layer", "head", "from_segment", "to_segment")
    assert mass.shape == (100, 28, heads, 6, 6)
    assert mass.name == "segment_mass" and mass.dtype == np.float32
    assert tuple(mass["from_segment"].values) == tuple(mass["to_segment"].values) == SEGMENTS
    assert len(set(mass["trace"].values)) == 100
    answer = mass.sel(from_segment="answer")
    assert np.allclose(answer.sum("to_segment"), 1, atol=1e-5)
    reasoning = mass.sel(from_segment="reasoning")
    kept = ["bos", "prompt", "think", "reasoning"]
    assert np.allclose(reasoning.sel(to_segment=kept).sum("to_segment"), 1, atol=1e-5)
    assert reasoning.sel(to_segment=["end_think", "answer"]).isnull().all()
    assert mass.sel(from_segment=["bos", "prompt", "think", "end_think"]).isnull().all()


def test_segment_borders_tile_the_sequence(folder):
    mass = paper.load_segment_mass(folder, "qwen-1p5B", WITHOUT)
    starts, stops = mass["segment_start"].values, mass["segment_stop"].values
    assert (starts[:, 0] == 0).all() and (starts[:, 1:] == stops[:, :-1]).all()
    lengths = dict(zip(SEGMENTS, (stops - starts).T, strict=True))
    for single in ("bos", "think", "end_think"):
        assert (lengths[single] == 1).all()
    # "\nOkay, I think I have finished thinking.\n" is ten tokens of Qwen's vocabulary.
    assert (lengths["reasoning"] == 10).all()


def test_the_mean_masses_are_the_published_ones(folder):
    published = paper.published()["stage2_mean_segment_mass_answer"]
    for alias, name in (("qwen-1p5B", "R1-Qwen-1.5B"), ("qwen-7B", "R1-Qwen-7B")):
        mass = paper.load_segment_mass(folder, alias)
        mean = mass.sel(from_segment="answer").mean(["trace", "layer", "head"])
        assert mean.values == pytest.approx(published[name], abs=1e-4)


@pytest.mark.parametrize(("alias", "length"), [("qwen-1p5B", 1015), ("qwen-7B", 1523)])
def test_the_patching_case_is_a_patch_grid(folder, alias, length):
    grid = paper.load_patching_case(folder, alias)
    assert grid.dims == ("layer", "position") and grid.sizes["layer"] == 28
    positions = grid["position"].values
    assert (np.diff(positions) > 0).all() and positions[-1] == length - 1
    assert len(grid.attrs["clean_tokens"]) == len(grid.attrs["corrupted_tokens"]) == length
    # The answer-flipping token works early; the last token before the answer takes over late.
    flips = grid["clean_token"] != grid["corrupted_token"]
    flipping = grid.sel(position=positions[flips.values]).max("position")
    assert flipping[:5].min() > 0.3 and flipping[-1] < 0.1
    assert abs(grid[:5, -1]).max() < 0.05 and grid[-1, -1] > 0.9


def test_the_question_pairs(folder):
    pairs = paper.load_question_pairs(folder)
    assert len(pairs) == 197 and pairs["selected"].sum() == 103
    assert (pairs["answer_a"] != pairs["answer_b"]).all()
    assert pairs.loc[0, "answer_a"] == "Pacific"


# --- fetching ------------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *arguments):
        self.asked.append(self.path)


@pytest.fixture
def fetched(tmp_path) -> Path:
    """Files in the authors' format, as `fetch` names them: four problems, both conditions."""
    ask = "Please put your final answer within \\boxed{}. <think>\n"
    closed = f"{ask}Okay, I think I have finished thinking.\n</think>"
    responses = {
        WITH: [
            f"{BOS}1+1? {ask}Hm</think>\\boxed{{2}}{EOS}",
            f"{BOS}1+2? {ask}Hm, \\boxed{{3}}, cut",
            f"{BOS}1+3? {ask}a</think>b</think>\\boxed{{4}}{EOS}",
            f"{BOS}1+4? {ask}Hm</think>It is 5{EOS}",
        ],
        WITHOUT: [
            f"{BOS}1+1? {closed}\\boxed{{3}}{EOS}",
            f"{BOS}1+2? {closed}\\boxed{{3}}{EOS}",
            f"{BOS}1+3? {closed}\\boxed{{8/2}}{EOS}",
            f"{BOS}1+4? {closed}\\boxed{{5}}{EOS}",
        ],
    }
    for condition, texts in responses.items():
        rows = [
            {"unique_id": f"p{i}", "problem": f"1+{i}?", "response": text}
            for i, text in enumerate(texts, start=1)
        ]
        path = tmp_path / f"math500_sampled_qwen-7B_{condition}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_fetched_traces_are_read_with_what_the_funnel_needs(fetched):
    frame = paper.load_originals(fetched, "qwen-7B", WITH)
    assert frame["problem_id"].tolist() == ["p1", "p2", "p3", "p4"]
    assert frame["finished"].tolist() == [True, False, True, True]
    assert frame["well_formed"].tolist() == [True, False, False, True]
    with pytest.raises(FileNotFoundError, match=r"fetch\(.*brings these traces: math500_sampled"):
        paper.load_originals(fetched, "qwen-7B", WITH, greedy=True)


def test_fetched_traces_give_the_funnel_and_the_comparison(fetched):
    problems = [Problem(f"p{i}", f"1+{i}?", str(1 + i), {"level": i}) for i in range(1, 5)]
    answers = regrading.original_answers(fetched, "qwen-7B", problems)
    counts = funnel(answers).pivot(index="condition", columns="step", values="count")
    steps = ["asked", "finished", "well formed", "answer found"]
    assert counts.loc[WITH, steps].tolist() == [4, 3, 2, 1]
    assert counts.loc[WITHOUT, steps].tolist() == [4, 4, 4, 4]
    finished = paired_comparison(answers, "finished_pairs").iloc[0]
    assert (finished["n"], finished["only_with"], finished["only_without"]) == (1, 1, 0)
    wrong = paired_comparison(answers, "unfinished_wrong").iloc[0]
    assert (wrong["n"], wrong["accuracy_with"], wrong["accuracy_without"]) == (4, 0.25, 0.75)
    assert answers["level"].tolist() == [1, 2, 3, 4] * 2


@pytest.fixture
def data(paper_data, monkeypatch):
    monkeypatch.setenv(paper.DATA_VARIABLE, str(paper_data))


@pytest.mark.parametrize("name", paper.TRACED)
def test_the_problems_of_a_distill_s_traces_are_problems_of_math500(data, paper_data, name):
    problems = load_problems(name)
    known = {problem.id: problem for problem in load_problems(paper_data / "math500.jsonl")}
    assert len(problems) == 100
    assert problems == [known[problem.id] for problem in problems]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_prompt_and_completion_are_the_stored_text(data, tiny, paper_data, condition):
    problems = load_problems("R1-Qwen-7B", n=10)
    backend = backend_of("written", tiny, paper.paper_writer("R1-Qwen-7B"))
    options = {"prompt_style": "raw", "sampling": Sampling(100_000), "backend": backend}
    completions = collect_completions(tiny, problems, condition, **options)
    traces = paper.load_traces(paper_data).query("model_alias == 'qwen-7B'")
    stored = traces.set_index(["problem_id", "condition"])["response"]
    for completion in completions:
        trace = completion.to_trace(tiny.tokenizer)
        response = stored[completion.problem_id, condition]
        body = response.removeprefix("<｜begin▁of▁sentence｜>").removesuffix(
            "<｜end▁of▁sentence｜>"
        )
        assert "".join(trace.tokens[1:]) == body


def test_a_text_beyond_the_limit_is_cut_and_is_not_finished(data, tiny):
    problems = load_problems("R1-Qwen-1.5B", n=3)
    write = paper.paper_writer("R1-Qwen-1.5B")
    lengths = [len(encode(tiny.tokenizer, write(p, "without_reasoning"))) for p in problems]
    limit = sorted(lengths)[1]  # the end token does not fit behind a text of as many tokens
    completions = collect_completions(
        tiny,
        problems,
        "without_reasoning",
        sampling=Sampling(limit),
        backend=backend_of("written", tiny, write),
    )
    assert [c.finished for c in completions] == [length < limit for length in lengths]
    assert all(
        len(c.completion_ids) == min(n, limit) for c, n in zip(completions, lengths, strict=True)
    )
    with pytest.raises(ValueError, match=f"was cut at {limit} tokens"):
        next(c for c in completions if not c.finished).to_trace(tiny.tokenizer)


def test_a_problem_without_a_trace_is_no_text(data):
    [problem] = load_problems("tiny", n=1)
    with pytest.raises(KeyError):
        paper.paper_writer("R1-Qwen-1.5B")(problem, "with_reasoning")
