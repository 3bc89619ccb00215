"""The parameter files of the repository fit the notebooks that they are for."""

import re
from pathlib import Path

import pytest

from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.loading import load_problems
from r2a_utils.models.memory import PROMPT_TOKENS
from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of
from r2a_utils.publishing.rerun_page import plans_table, read_plans
from r2a_utils.runs.parameters import ParameterError, resolve
from r2a_utils.runs.running import read_parameters
from r2a_utils.runs.stage import load_stages

REASONS_WHEN_ASKED = re.compile("Ministral|Magistral")
FILES = sorted((Path(__file__).resolve().parents[2] / "book" / "params").glob("*.yml"))
DECLARED = {name: stage.parameters for name, stage in load_stages().items()}
DECODING = ("source", "prompt_style", "temperature", "top_p", "samples", "max_new_tokens")


def values_of(path: Path) -> dict[str, dict]:
    return resolve(DECLARED, DECLARED, read_parameters(path), {})


def resolve_defaults() -> dict[str, dict]:
    """The notebooks' own values, of the stages that load a model."""
    values = resolve(DECLARED, DECLARED, {}, {})
    return {stage: mine for stage, mine in values.items() if "model_name" in mine}


def collected(path: Path) -> dict:
    return values_of(path)["01_collect_traces"]


def test_the_switch_to_a_distilled_r1_on_math500_is_there():
    asked = {(v["model_name"], v["dataset"]) for v in map(collected, FILES)}
    assert ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "math500") in asked


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_name_and_type_of_a_file_is_one_that_a_notebook_declares(path):
    given = read_parameters(path)
    for stage, values in values_of(path).items():
        meant = {n: v for n, v in given.items() if n in values} | given.get(stage, {})
        assert {name: values[name] for name in meant} == meant
    model = collected(path)["model_name"]
    assert model in REGISTRY or model.startswith("hf:")  # a packed file is no registered model


PLANS = {plan.file: plan for plan in read_plans(FILES[0].parent)}


def test_every_registered_model_has_a_file_save_the_bundled_ones_whose_values_the_notebooks_show():
    others = {name for name, known in REGISTRY.items() if known.hub_id is not None}
    assert {plan.model for plan in PLANS.values()} == others
    assert all(values["model_name"] == "r2a-tiny" for values in resolve_defaults().values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_needs_and_the_command_that_uses_it(path):
    plan = PLANS.get(path.name)
    said = " ".join(line.removeprefix("#") for line in path.read_text().splitlines()).split()
    said = " ".join(said)
    assert "r2a run --run-id " in said
    if plan is None or plan.teacher_forced:
        return
    assert f"--params book/params/{path.name}" in said
    if not plan.estimated:
        assert f"{plan.rows} texts at once. What memory and time it takes is not estimated" in said
        return
    assert f"{plan.weights / 1e9:.1f} GB of weights" in said
    texts = f"{plan.rows} texts of {PROMPT_TOKENS} + {plan.tokens:,} tokens at most"
    assert f"{plan.cache / 1e9:.1f} GB of keys and values ({texts})" in said
    assert f"about {plan.hours:.1f} hours: an estimate that nobody has measured" in said
    assert f"for {'one GPU' if plan.gpus == 1 else f'{plan.gpus} GPUs'} of 80 GB" in said


def test_the_plans_memory_is_that_of_the_shapes():
    plan = PLANS["r1-qwen-7b-math500.yml"]
    assert plan.weights == 2 * parameter_count(shape_of(plan.model))
    # 28 layers, 4 grouped heads of 128, keys and values, 2 bytes
    assert plan.cache == 64 * (512 + 10_000) * 28 * 4 * 128 * 2 * 2
    assert plan.gpus == 1


def test_a_file_that_no_notebook_understands_is_named(tmp_path):
    (tmp_path / "mine.yml").write_text("n_problem: 3")
    with pytest.raises(ParameterError, match=r"mine.yml: no stage has .*did you mean n_problems"):
        read_plans(tmp_path)


def test_a_model_that_is_not_registered_has_no_row(tmp_path):
    (tmp_path / "mine.yml").write_text("model_name: somebody/model")
    assert read_plans(tmp_path) == []
    (tmp_path / "known.yml").write_text("model_name: smollm2-135m")
    table = plans_table(read_plans(tmp_path)).splitlines()
    assert len(table) == 3
    assert table[2].startswith("| `known.yml` | 0.3 | 64 |")
    (tmp_path / "hybrid.yml").write_text("model_name: tiiuae/Falcon-H1R-7B\nn_problems: 3")
    last = plans_table(read_plans(tmp_path)).splitlines()[3]
    assert last.startswith("| `hybrid.yml` | not estimated | 64 | not estimated |")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_system_message_asks_for_the_box_and_for_the_tags_where_a_model_must_be_asked(path):
    values = collected(path)
    if values["prompt_style"] == "chat" and values["source"] == "model":
        asks = REASONS_WHEN_ASKED.search(values["model_name"]) is not None
        assert r"\boxed{}" in values["system"]
        assert ("{open}" in values["system"] and "{close}" in values["system"]) == asks


PUBLISHED = [path for path in FILES if path.stem.startswith("r1-")]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_file_for_a_published_model_decodes_as_the_paper_does(path):
    values = collected(path)
    sampling = Sampling(values["max_new_tokens"], values["temperature"], values["top_p"])
    assert sampling == Sampling(max_new_tokens=10_000, temperature=0.6)
    assert (values["prompt_style"], values["without"], values["samples"]) == ("raw", "finished", 1)


@pytest.mark.parametrize("path", [None, *FILES], ids=lambda path: path.stem if path else "defaults")
def test_the_arms_of_stage_1_decode_like_its_first_notebook(path):
    given = read_parameters(path) if path else {}
    values = resolve(DECLARED, DECLARED, given, {})
    first, second = values["01_collect_traces"], values["02_answer_quality"]
    assert {k: first[k] for k in DECODING} == {k: second[k] for k in DECODING}
    assert (first["model_name"], first["seed"]) == (second["model_name"], second["seed"])


def test_the_slices_of_the_math500_file_are_in_the_data(paper_data):
    path = next(p for p in FILES if "math500" in p.stem)
    problems = load_problems(paper_data / "math500.jsonl")
    assert len(problems) == collected(path)["n_problems"]
    assert all(values_of(path)["02_answer_quality"]["slice_by"] in p.meta for p in problems)
