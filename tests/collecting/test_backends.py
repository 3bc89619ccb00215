"""Where a run's texts come from, in one word."""

import pytest

from r2a_utils.collecting.backends import backend_of, writer_of
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.collecting.solutions import write_solution
from r2a_utils.texts.problem import Problem
from r2a_utils.tiny.world import write_text

PROBLEM = Problem("p", "What is 2 + 2?", "4")


def test_the_model_itself_is_no_back_end(tiny):
    assert backend_of("model", tiny) is None


def test_written_texts_are_put_before_the_model(tiny):
    backend = backend_of("written", tiny, lambda problem, condition: f"{condition}: {problem.id}")
    [completion] = collect_completions(tiny, [PROBLEM], backend=backend)
    assert completion.text == "with_reasoning: p"


def test_a_url_is_a_server_that_knows_the_model_by_its_name(tiny):
    assert backend_of("http://localhost:1/v1", tiny).__name__ == "server r2a-tiny"


@pytest.mark.parametrize("source", ["written", "modell", "localhost:8000"])
def test_any_other_source_is_refused_with_what_there_is(tiny, source):
    with pytest.raises(ValueError, match=r"choose .model., or the URL of a server"):
        backend_of(source, tiny)


def test_what_is_written_goes_by_the_data_set(paper_data, monkeypatch):
    monkeypatch.setenv("R2A_PAPER_DATA", str(paper_data))
    assert writer_of("tiny") is writer_of("told") is write_text
    assert writer_of("grade_school") is write_solution
    assert writer_of("math500") is write_solution
    assert callable(writer_of("R1-Qwen-7B"))
