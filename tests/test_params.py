"""The parameter files of the repository fit the notebooks that they are for."""

from pathlib import Path

import pytest

from r2a_utils.generation import Sampling
from r2a_utils.parameters import resolve
from r2a_utils.problems import load_problems
from r2a_utils.registry import REGISTRY
from r2a_utils.runs import read_parameters
from r2a_utils.stages import load_stages

FILES = sorted((Path(__file__).resolve().parents[1] / "book" / "params").glob("*.yml"))
DECLARED = {name: stage.parameters for name, stage in load_stages().items()}
DECODING = ("source", "prompt_style", "temperature", "top_p", "samples", "max_new_tokens")


def values_of(path: Path) -> dict[str, dict]:
    return resolve(DECLARED, DECLARED, read_parameters(path), {})


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
    assert collected(path)["model_name"] in REGISTRY


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
