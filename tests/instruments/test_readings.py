"""Each instrument read on the user, whose answers are made from the reasoning, and on its twin."""

from __future__ import annotations

import pytest

from r2a_utils.causal.conclusions import conclusion_of
from r2a_utils.instruments.cases import (
    Case,
    organism_cases,
    own_cases,
    taught_texts,
    untrained_cases,
)
from r2a_utils.instruments.readings import INSTRUMENTS, read_instruments
from r2a_utils.models.loading import load_model, untrained_twin
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.tiny.organisms import hint_in, organism_problems


@pytest.fixture(scope="module")
def user():
    return load_model("r2a-tiny")


@pytest.fixture(scope="module")
def cases(user) -> list[Case]:
    return organism_cases(user, "r2a-tiny", 6)


@pytest.fixture(scope="module")
def of_user(user, cases):
    return read_instruments(user, cases, taught=taught_texts(user, "r2a-tiny", 40, but=cases))


@pytest.fixture(scope="module")
def means(of_user):
    return of_user.groupby("instrument")["value"].mean()


def test_a_case_concludes_as_its_problem_does_and_its_donor_otherwise(cases):
    assert len(cases) >= 3
    for case in cases:
        assert case.uses
        other, _ = case.donor
        assert other.answer != case.problem.answer
        for problem, trace in ((case.problem, case.trace), case.donor):
            places = conclusion_of(trace, problem.answer)
            assert {trace.tokens[p].strip() for p in places} == {problem.answer}
            after = "".join(trace.tokens[places[-1] : trace.segments["reasoning"].stop])
            assert "\n" not in after.rstrip()  # the last line
        assert conclusion_of(case.off_policy, other.answer)
        assert case.off_policy.token_ids != case.donor[1].token_ids


def test_every_instrument_reads_every_case(of_user, cases):
    assert of_user["instrument"].unique().tolist() == list(INSTRUMENTS)
    assert (of_user.groupby("instrument").size() == len(cases)).all()
    assert of_user["value"].notna().all()
    shares = [name for name, known in INSTRUMENTS.items() if known.share]
    read = of_user.loc[of_user["instrument"].isin(shares), "value"]
    assert read.between(-1, 1).all()


def test_a_probe_is_taught_other_problems_with_the_answers_that_are_meant(user, cases):
    texts = taught_texts(user, "r2a-hinted", 12)
    problems = organism_problems("r2a-hinted", 12, seed=1)
    for text, problem in zip(texts, problems, strict=True):
        assert extract_answer(text.answer_text) == (hint_in(problem.question) or problem.answer)
        assert conclusion_of(text, problem.answer)  # what it says is honest
    asked = [Case(problem, text) for problem, text in zip(problems, texts, strict=True)][:5]
    assert len(taught_texts(user, "r2a-hinted", 12, but=asked)) == 7


@pytest.mark.parametrize(
    "name",
    [
        "knockout",
        "costliest sentence",
        "patching, own",
        "patching, written donor",
        "mediation index",
        "partner's thought",
        "empty",
    ],
)
def test_what_is_done_to_the_reasoning_reaches_the_answer_of_the_user(means, name):
    assert means[name] > 0.2


def test_a_donor_that_the_model_did_not_write_is_another_donor(of_user):
    own, written = (
        of_user.loc[of_user["instrument"] == name, "value"].to_numpy()
        for name in ("patching, own", "patching, written donor")
    )
    assert (abs(own - written) > 1e-3).any()


def test_the_twin_lacks_what_is_lost_and_looks_nevertheless(user, cases):
    """Random weights attend to a long reasoning by its length: the mean head's lift is about 1."""
    twin = untrained_twin(user)
    frame = read_instruments(twin, untrained_cases(cases))
    assert not frame["uses"].any()
    means = frame.groupby("instrument")["value"].mean()
    assert means["lift"] == pytest.approx(1, abs=0.1)
    changed = (
        "knockout",
        "costliest sentence",
        "patching, own",
        "patching, written donor",
        "mediation index",
        "partner's thought",
    )
    for name in (*changed, "early answering"):
        assert abs(means[name]) < 0.05


def test_where_truth_and_donor_are_missing_neither_pairs_nor_the_probe_are_read(user, cases):
    own = own_cases(user, [case.trace for case in cases], [case.problem for case in cases], 2)
    frame = read_instruments(user, own)
    assert frame["uses"].isna().all()
    missing = frame[frame["value"].isna()]["instrument"].unique().tolist()
    needing = [n for n, known in INSTRUMENTS.items() if known.needs_pair or known.needs_texts]
    assert missing == needing


def test_nothing_is_read_of_no_case(user):
    with pytest.raises(ValueError, match="no cases"):
        read_instruments(user, [])
