"""The reasoning without its cues, beside the reasoning as it comes."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from r2a_utils.answers import no_cue
from r2a_utils.answers.graded import grade_completions
from r2a_utils.answers.no_cue import arm_summary, compare_arms, cue_token_ids, cued_problems
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.texts.trace import CUES, encode
from r2a_utils.training.vocabulary import train_tokenizer

LIMIT = Sampling(300)


@pytest.fixture(scope="module")
def problems():
    return load_problems("tiny", n=16, seed=5)


@pytest.fixture(scope="module")
def plain(tiny, problems):
    return collect_completions(tiny, problems, sampling=LIMIT)


CORPUS = ["Wait, wait. WAIT wait But but button Hmm, hmm Alternatively, alternatively, weight"] * 9


def test_every_token_of_a_cue_and_no_other_word_is_banned():
    tokenizer = train_tokenizer(CORPUS)
    cue_ids = cue_token_ids(tokenizer)
    assert list(cue_ids) == list(CUES)
    for spelling in ("Wait", " wait", "But", " but", "Hmm", " hmm", " Alternatively"):
        ids = encode(tokenizer, spelling)
        assert len(ids) > 1 or ids[0] in cue_ids[spelling.strip().lower()]
    assert sum(map(len, cue_ids.values())) >= 4
    banned = {i for ids in cue_ids.values() for i in ids}
    for word in (" button", " weight", ".", "\n", " 7"):
        assert not banned & set(encode(tokenizer, word))
    assert not banned & set(tokenizer.all_special_ids)


def test_the_first_token_of_a_cue_is_banned_where_it_begins_little_else(tokenizer, monkeypatch):
    pieces = {"however": ["howe", "ver"], "actually": ["a", "ctually"]}
    ids = {}  # piece -> an id that the vocabulary does not have

    def split(tokenizer, text):
        word = pieces.get(text, [text])
        return [ids.setdefault(piece, 1000 + len(ids)) for piece in word]

    names = type(tokenizer)
    monkeypatch.setattr(no_cue, "encode", split)
    decode = names.decode
    monkeypatch.setattr(
        names,
        "decode",
        lambda self, token_ids, **options: (
            next((piece for piece, i in ids.items() if [i] == token_ids), None)
            or decode(self, token_ids, **options)
        ),
    )
    cue_ids = cue_token_ids(tokenizer)
    assert ids["howe"] in cue_ids["however"]
    assert ids["a"] not in cue_ids["actually"]


@pytest.fixture(scope="module")
def without_cues(tiny, problems):
    cue_ids = cue_token_ids(tiny.tokenizer)
    banned = tuple(i for ids in cue_ids.values() for i in ids)
    sampling = Sampling(LIMIT.max_new_tokens, banned_ids=banned)
    return set(banned), collect_completions(tiny, problems, sampling=sampling)


def test_without_cues_no_banned_word_is_written_and_nothing_else_changes(plain, without_cues):
    banned, no_cue = without_cues
    word = re.compile(r"\b(wait|hmm|alternatively)\b", re.IGNORECASE)
    assert any(word.search(c.text) for c in plain)
    for before, after in zip(plain, no_cue, strict=True):
        assert not banned & set(after.completion_ids)
        assert not word.search(after.text)
        wanted = [i for i, token in enumerate(before.completion_ids) if token in banned]
        same = wanted[0] if wanted else None  # up to the first banned token all is as it was
        assert after.completion_ids[:same] == before.completion_ids[:same]


def test_arms_are_compared_on_the_problems_that_had_a_cue(plain, without_cues, problems):
    banned, no_cue = without_cues
    graded = [grade_completions(completions, problems) for completions in (plain, no_cue)]
    cued = cued_problems(plain, banned)
    table = arm_summary(*graded, cued).set_index(["group", "arm"])
    none = table.loc["none in the plain arm"]
    assert none.loc["plain"].equals(none.loc["no cue"])
    assert table.n["all problems", "plain"] == len(problems)
    assert table.n["a banned cue in the plain arm", "plain"] == len(cued)


def answers(correct: list[bool], tokens: list[int], finished: bool = True) -> pd.DataFrame:
    frame = {"problem_id": list("abcd"), "correct": correct, "n_tokens": tokens}
    return pd.DataFrame(frame | {"finished": finished, "sample": 0})


PLAIN = answers([True, True, True, False], [100, 100, 50, 150])
NO_CUE = answers([True, False, False, False], [50, 50, 50, 50])


def test_a_difference_of_arms_by_hand():
    found = compare_arms(PLAIN, NO_CUE, {"a", "b"}, still_cued=0.25)
    assert found.n == 4
    assert found.difference == -0.5
    assert (found.only_plain, found.only_no_cue) == (2, 0)
    assert found.mcnemar_p == 0.5
    assert found.length_ratio == 0.5
    assert found.ratio_low < 0.5 < found.ratio_high
    assert found.ci_low < -0.5 < found.ci_high
    assert (found.cued, found.cued_plain, found.cued_no_cue) == (0.5, 1.0, 0.5)
    assert found.still_cued == 0.25
    unfinished = compare_arms(PLAIN, answers([True] * 4, [50] * 4, finished=False), set())
    assert unfinished.difference == -0.75
    with pytest.raises(ValueError, match="'d' was asked in one arm only"):
        compare_arms(PLAIN, NO_CUE[:3], set())


def test_without_a_cue_or_with_one_problem_what_is_not_known_is_none():
    found = compare_arms(PLAIN, NO_CUE, set())
    assert (found.cued, found.cued_plain, found.cued_no_cue) == (0.0, None, None)
    assert found.still_cued is None
    one = compare_arms(PLAIN[:1], NO_CUE[:1], {"a"})
    assert (one.n, one.difference, one.ci_low, one.ci_high) == (1, 0.0, None, None)


def test_of_several_samples_a_problem_has_its_mean_and_mcnemar_is_not_defined():
    twice = [pd.concat([arm, arm.assign(sample=1, correct=True)]) for arm in (PLAIN, NO_CUE)]
    found = compare_arms(*twice, set())
    assert found.mcnemar_p is None
    assert found.difference == -0.25  # two problems, half of their samples
    assert (found.only_plain, found.only_no_cue) == (2, 0)
    assert found.ci_low < -0.25 < found.ci_high


def test_a_group_without_problems_is_left_out():
    groups = set(arm_summary(PLAIN, PLAIN, set()).group)
    assert groups == {"all problems", "none in the plain arm"}


def test_a_problem_is_cued_if_one_of_its_texts_holds_a_banned_token(plain, without_cues):
    banned, no_cue = without_cues
    assert cued_problems(no_cue, banned) == set()
    first = next(c for c in plain if banned & set(c.completion_ids))
    assert cued_problems([no_cue[0], first, no_cue[1]], iter(banned)) == {first.problem_id}
