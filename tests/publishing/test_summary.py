"""What a run says at its end: its stages, what they found, where the page is."""

from pathlib import Path

import pytest

from r2a_utils.publishing.book import BookRun
from r2a_utils.publishing.headlines import HEADLINES, headline
from r2a_utils.publishing.summary import summary
from r2a_utils.runs.folder import Run
from r2a_utils.runs.running import StageResult
from r2a_utils.runs.stage import load_stages

SHOWN = [BookRun("default", "Ours", {}), BookRun("other", "Another", {})]


def result(stage: str, ran: bool = True, seconds: float = 90) -> StageResult:
    return StageResult(stage, ran, seconds, Path(f"{stage}.ipynb"))


def test_a_stage_says_what_it_found_and_how_long_it_took(tmp_path):
    record = {"with_reasoning": 0.9, "without_reasoning": 0.3}
    Run.open(tmp_path / "default").write_record("answer_quality", record)
    results = [result("02_answer_quality"), result("90_mine", ran=False, seconds=0)]
    lines = summary(tmp_path / "default", results, SHOWN).splitlines()
    assert lines[0].split() == ["stage", "status", "minutes", "finding"]
    assert lines[1] == (
        "02_answer_quality          ran           1.5  "
        "90 % of the answers are right with reasoning, 30 % without"
    )
    assert lines[2].split() == ["90_mine", "unchanged", "0.0"]


@pytest.mark.parametrize(
    ("run_id", "told"),
    [
        ("default", "_build/html/stages/02_answer_quality.html"),
        ("other", "_build/html/other/02_answer_quality.html"),
        ("mine", "list 'mine' in book/runs.yml and run `r2a book`"),
    ],
)
def test_a_run_says_where_its_page_is(tmp_path, run_id, told):
    Run.open(tmp_path / run_id).write_record("answer_quality", {})
    assert told in summary(tmp_path / run_id, [result("02_answer_quality")], SHOWN)


def test_a_record_that_lacks_the_finding_spoils_no_run(tmp_path):
    Run.open(tmp_path / "mine").write_record("answer_quality", {})
    told = summary(tmp_path / "mine", [result("02_answer_quality")], SHOWN)
    assert "has no attribute 'with_reasoning'" in told


def test_every_stage_has_a_headline():
    assert set(HEADLINES) == set(load_stages())


def test_the_scoreboard_speaks_of_doses_where_they_were_asked():
    verdicts = {"tells": ["a", "b"], "tells in part": []}
    found = {"n": 3, "by_verdict": verdicts, "by_growth": {"grows": ["a"]}, "dose_problems": 9}
    asked, not_asked = (
        headline("06b_which_instruments", "x", {"scoreboard": found | {"dose_problems": n}})
        for n in (9, 0)
    )
    assert asked.removeprefix(not_asked) == "; with the dose 1 grow"


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("stage", HEADLINES)
def test_a_headline_quotes_what_its_stage_keeps(small_runs, stage):
    told = headline(stage, "default", Run.open(small_runs / "default").records())
    assert told[:1] not in ("", "(")
