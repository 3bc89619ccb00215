"""What a parameter cannot be is refused in one line before anything runs."""

import subprocess
import sys

import pytest

from r2a_utils.collecting.loading import NAMES
from r2a_utils.models.registry import REGISTRY
from r2a_utils.runs.limits import Limits
from r2a_utils.runs.parameters import ParameterError, resolve
from r2a_utils.runs.stage import ROOT, load_stages
from r2a_utils.texts.prompts import STYLES, WITHOUT

STAGES = load_stages()
DECLARED = {name: stage.parameters for name, stage in STAGES.items()}
# Words of the user's own, of which no list can be made.
FREE = {
    "run_dir",
    "columns",
    "slice_by",
    "judge_model",
    "system",
    "tags",
    "display_name",
    "revision",
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_of_every_stage_has_limits_that_its_default_keeps(stage):
    for name, parameter in DECLARED[stage].items():
        limits = parameter.limits
        if name in FREE:
            continue
        if parameter.kinds & {"int", "float"}:
            assert limits.least is not None or limits.above is not None, name
            assert limits.most is not None or limits.below is not None, name
        else:
            assert limits.choices or limits.others, name
        assert parameter.convert(parameter.default) == parameter.default


def test_a_name_has_the_same_limits_in_every_stage():
    """A value goes to every stage that has its name."""
    for name in {name for parameters in DECLARED.values() for name in parameters}:
        limits = [parameters[name].limits for parameters in DECLARED.values() if name in parameters]
        assert all(other == limits[0] for other in limits), name


def test_the_words_of_the_headers_are_those_that_the_rooms_know():
    first = DECLARED["01_collect_traces"]
    assert set(first["dataset"].limits.choices) == set(NAMES)
    assert set(first["without"].limits.choices) == set(WITHOUT)
    assert set(first["prompt_style"].limits.choices) == set(STYLES)
    for name in REGISTRY:
        assert first["model_name"].convert(name) == name


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("n_traces", "-1", "n_traces takes a number of at least 1 and at most 1,000,000, not -1"),
        ("n_problems", "0", "at least 1"),
        ("n_problems", "1000000000000", "at most 1,000,000"),
        ("n_problems", "010", "a whole number, not '010'"),
        ("n_problems", "0x10", "a whole number"),
        ("n_problems", "1_000", "a whole number"),
        ("n_problems", "1:30", "a whole number"),
        ("n_problems", "inf", "a whole number"),
        ("temperature", "inf", "a number that is finite"),
        ("temperature", "nan", "a number that is finite"),
        ("temperature", ".inf", "a number that is finite"),
        ("temperature", "-0.1", "at least 0"),
        ("temperature", "1e300", "at most 10"),
        ("top_p", "0", "more than 0"),
        ("confidence", "1", "less than 1"),
        ("seed", "-1", "at least 0"),
        ("source", "modell", "'model' or 'written' or the URL of a server"),
        ("source", "modell", "did you mean 'model'?"),
        ("source", "http://", "source takes"),
        ("source", "http://host:99999/v1", "source takes"),
        ("prompt_style", "", "prompt_style takes 'chat' or 'raw' or 'example' or a file"),
        ("dataset", "mathh500", "did you mean 'math500'?"),
        ("dataset", "no/such/file.jsonl", "a file or folder that is there"),
        ("dataset", "x" * 5000, "…"),
        ("dataset", "\0", "dataset takes"),
        ("model_name", "r2a_tiny", "did you mean 'r2a-tiny'?"),
        ("dtype", "float64", "'auto' or 'float32' or 'bfloat16'"),
        ("device", "gpu", "'auto' or 'cpu' or 'cuda' or one of several GPUs (cuda:1)"),
        ("protocol", "probed", "did you mean 'probe' or"),
        ("judge_url", "localhost:8000", "the URL of a server"),
        ("paper_data", "/no/such/folder", "a file or folder that is there"),
    ],
)
def test_a_value_outside_is_refused_with_what_is_taken(name, text, told):
    with pytest.raises(ParameterError) as error:
        resolve(DECLARED, list(DECLARED), {}, {name: text})
    assert told.partition(" or")[0] in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("source", "http://localhost:8000/v1"),
        ("dataset", "README.md"),
        ("model_name", "r2a_utils/tiny"),
        ("model_name", "Qwen/Qwen3-0.6B"),
        ("model_name", "hf:owner/repository/file.gguf"),
        ("model_name", "ollama:deepseek-r1:1.5b"),
        ("device", "cuda:1"),
        ("display_name", "My model, 4 bits"),
        ("revision", "refs/pr/3"),
        ("temperature", "0"),
        ("n_problems", "1000000"),
        ("paper_data", "None"),
    ],
)
def test_a_value_at_the_border_is_taken(name, text):
    resolve(DECLARED, list(DECLARED), {}, {name: text})


@pytest.mark.parametrize(
    "entries", [{}, {"leest": 1}, {"or": ["file"]}, [1], {"choices": ["a"], "or": ["urls"]}]
)
def test_limits_that_mean_nothing_are_refused(entries):
    with pytest.raises(ValueError, match="limits of n"):
        Limits.read(entries, "01_first.py: limits of n")


def test_the_command_refuses_at_once_and_loads_no_model():
    code = (
        "import sys\nfrom r2a_utils.cli import main\n"
        "status = main(['run', '--run-id', 'never', '--set', 'n_traces=-1'])\n"
        "sys.exit(status + 10 * ('torch' in sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert told.returncode == 2
    assert "n_traces takes a number of at least 1" in told.stderr
    assert not (ROOT / "runs/never").exists()
