"""Names and types of parameters are settled before anything runs."""

import pytest

from r2a_utils.runs.parameters import ParameterError, declared, fill, resolve

CELL = """\
run_dir = "runs/default"  # set by the runner
model_name = "r2a-tiny"
n_problems = 200
temperature = 0.0  # 0 is greedy
chat = False
layers: list[int] | None = None
words = ["wait", "hmm"]
share = [0.5, 1]
tags: dict | None = None
"""
PARAMETERS = declared(CELL, "01_first.py")
STAGES = {
    "01_first": PARAMETERS,
    "02_second": declared('run_dir = ""\nn_pairs = 50\nn_problems = 10', "02_second.py"),
}


def settle(given=None, settings=None, selected=("01_first", "02_second")):
    return resolve(STAGES, selected, given or {}, settings or {})


def refusal(given=None, settings=None, selected=("01_first", "02_second")) -> str:
    with pytest.raises(ParameterError) as error:
        settle(given, settings, selected)
    return str(error.value)


def test_the_defaults_are_the_values_that_the_cell_shows():
    assert settle()["01_first"] == {
        "run_dir": "runs/default",
        "model_name": "r2a-tiny",
        "n_problems": 200,
        "temperature": 0.0,
        "chat": False,
        "layers": None,
        "words": ["wait", "hmm"],
        "share": [0.5, 1],
        "tags": None,
    }


def test_a_shared_value_goes_to_every_stage_that_declares_it_and_a_section_to_one():
    values = settle({"n_problems": 5, "02_second": {"n_pairs": 3, "n_problems": 4}})
    assert values["01_first"]["n_problems"] == 5
    assert values["02_second"] == {"run_dir": "", "n_pairs": 3, "n_problems": 4}


def test_entries_under_the_name_of_a_parameter_are_its_value_and_no_section():
    assert settle({"tags": {"open": "a"}})["01_first"]["tags"] == {"open": "a"}
    assert "tags = None" not in fill(CELL, PARAMETERS, settle({"tags": {"a": "b"}})["01_first"])
    assert "there is no stage 'tagz'" in refusal({"tagz": {"open": "a"}})


def test_what_is_set_by_name_wins_over_the_file():
    values = settle({"n_problems": 5, "02_second": {"n_problems": 4}}, {"n_problems": "6"})
    assert values["01_first"]["n_problems"] == values["02_second"]["n_problems"] == 6


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model_name", "no", "no"),
        ("model_name", "1", "1"),
        ("n_problems", "12", 12),
        ("temperature", "1", 1.0),
        ("temperature", "1e-3", 0.001),
        ("chat", "true", True),
        ("layers", "[1, 2]", [1, 2]),
        ("layers", "3", [3]),
        ("layers", "None", None),
        ("words", "wait,but", ["wait", "but"]),
        ("share", "[1e-1, 2]", [0.1, 2.0]),
        ("tags", '{open: "[THINK]", close: x}', {"open": "[THINK]", "close": "x"}),
    ],
)
def test_a_text_from_the_command_line_takes_the_type_of_the_default(name, text, value):
    taken = settle(settings={name: text}, selected=["01_first"])["01_first"][name]
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_problems", "12", "a whole number, not '12'"),
        ("n_problems", 1.5, "a whole number, not 1.5"),
        ("n_problems", True, "a whole number, not True"),
        ("n_problems", None, "a whole number, not None"),
        ("temperature", "1e-3", "write 0.001"),
        ("chat", 1, "True or False, not 1"),
        ("model_name", False, "a text, not False"),
        ("layers", ["1"], "each of layers takes a whole number, not '1'"),
        ("layers", 3, "a list or None (int elements), not 3"),
        ("tags", "<think>", "entries ({name: value}) or None, not '<think>'"),
        ("tags", {"api_key": "x"}, "looks like a secret"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_taken(name, value, expected):
    assert expected in refusal({name: value}, selected=["01_first"])


def test_a_text_that_cannot_be_the_parameter_is_refused():
    assert "a whole number" in refusal(settings={"n_problems": "many"})
    assert "a whole number" in refusal(settings={"n_problems": "1e3"})


def test_a_misspelt_name_is_refused_with_the_nearest_one():
    assert "did you mean n_problems" in refusal({"n_problem": 5})
    assert "did you mean 02_second" in refusal({"02_secnd": {"n_pairs": 1}})
    message = refusal({"02_second": {"n_pair": 1}})
    assert message == "stage 02_second has no parameter 'n_pair'; did you mean n_pairs?"


def test_a_file_may_speak_of_stages_that_are_not_selected_but_a_setting_may_not():
    assert settle({"n_pairs": 3}, selected=["01_first"])["01_first"]["n_problems"] == 200
    told = refusal(settings={"n_pairs": "3"}, selected=["01_first"])
    assert "'n_pairs' is a parameter of 02, which is not among these stages" in told


def test_every_reason_is_listed_at_once():
    message = refusal({"n_problem": 5, "chat": 1, "temprature": 1.0})
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hf_token", "x"),
        ("api_key", "x"),
        ("userPassword", "x"),
        ("secret", "x"),
        ("model_name", "hf_abcdefghijklmnopqrstuv"),
        ("judge_url", "https://me:open-sesame@host/v1"),
        ("judge_url", "https://me@host/v1"),
        ("source", "http://host/v1?api_key=1234"),
        ("source", "http://host/v1?a=b&access_token=1234"),
        ("source", "http://host/v1#key=1234"),
        ("words", ["x", "https://me:open-sesame@host/v1"]),
        ("model_name", "https://host/sk-abcdefghijklmnopqrstuv"),
    ],
)
def test_what_looks_like_a_secret_is_refused(name, value):
    assert "looks like a secret" in refusal({name: value})


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "https://host/a@b?page=2", "a@b", "http://[", "monkey"]
)
def test_a_server_without_a_secret_is_taken(url):
    assert settle({"model_name": url})["01_first"]["model_name"] == url


def test_a_notebook_may_not_declare_a_secret_but_may_count_tokens():
    with pytest.raises(ParameterError, match="looks like a secret"):
        declared('hub_token = ""', "01.py")
    assert "max_new_tokens" in declared("max_new_tokens = 5", "01.py")


def test_the_run_folder_is_not_a_parameter_to_give():
    assert "--run-id" in refusal({"run_dir": "elsewhere"})


@pytest.mark.parametrize(
    "cell", ["n = 2 * 3", "import os", "n = {1}", "a = b = 1", "n: tensor = 1"]
)
def test_a_parameters_cell_holds_only_literal_values(cell):
    with pytest.raises(ParameterError, match="line 1 of the parameters cell"):
        declared(cell, "01_first.py")


def test_the_cell_is_rewritten_with_the_values_of_a_run_and_keeps_its_comments():
    values = settle({"temperature": 1, "words": ['say "so"']}, {"layers": "1,2"}, ["01_first"])
    cell = fill(CELL, PARAMETERS, values["01_first"])
    assert "temperature = 1.0  # 0 is greedy" in cell
    assert "layers: list[int] | None = [1, 2]" in cell
    assert "share = [0.5, 1]" in cell
    assert {n: p.default for n, p in declared(cell, "again").items()} == values["01_first"]


def test_a_cell_in_another_alphabet_is_rewritten_at_the_right_place():
    cell = 'word = "größe"; n = 1'
    parameters = declared(cell, "01.py")
    assert fill(cell, parameters, {"word": "é", "n": 22}) == 'word = "é"; n = 22'
