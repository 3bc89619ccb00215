"""The verdicts on the paper's claims: one rule, the same for hits and for nulls."""

import pytest

from r2a_utils.publishing.claims import CLAIMS
from r2a_utils.publishing.evidence import (
    CANNOT_TELL,
    HOLDS,
    NOT_TESTED,
    OPPOSITE,
    WEAK,
    Evidence,
    verdict,
)
from r2a_utils.publishing.verdicts import judge

BY_STAGE = {claim.claim: claim.stage for claim in CLAIMS}
MATH, QUERIES, GAIN, ATTENDS, HEADS, MIDDLE, TRACKS, CUES, DEBUGGING, FLIPS, THROUGH = BY_STAGE


def evidence(value, low=None, high=None) -> Evidence:
    """Of a claim that is empty at 1 and holds from 2 on."""
    return Evidence(value, null=1, large=2, told="", low=low, high=high)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, NOT_TESTED),
        (evidence(None), CANNOT_TELL),
        (evidence(2.0, 1.001, 3.0), HOLDS),
        (evidence(1.999, 1.001, 3.0), WEAK),
        (evidence(9.0, 1.0, 20.0), CANNOT_TELL),  # as large as can be, and an interval that may be
        (evidence(1.5, 0.9, 2.1), CANNOT_TELL),
        (evidence(0.5, 0.1, 1.0), CANNOT_TELL),
        (evidence(0.5, 0.1, 0.999), OPPOSITE),
        (evidence(2.0), HOLDS),
        (evidence(1.001), WEAK),
        (evidence(1.0), CANNOT_TELL),
        (evidence(0.999), OPPOSITE),
    ],
)
def test_the_rule_at_its_borders(found, said):
    assert verdict(found) == said


def summary(**records) -> dict:
    stages = {stage: {} for stage in BY_STAGE.values()}
    records = {"model": {"name": "r2a-tiny"}, **records}
    return {
        "title": "Ours",
        "pages": "stages",
        "records": records,
        "stages": stages,
        "archive": None,
    }


def own(**records) -> dict[str, str]:
    return judge({"default": summary(**records)}).of("r2a-tiny")


def test_a_run_without_a_record_has_tested_nothing():
    assert set(own().values()) == {NOT_TESTED}


def family(of_asked=0.5, low=0.4, high=0.6, crossing=(3, 3)) -> dict:
    """Patching in one family of pairs, as `activation_patching` records it."""
    first, last = crossing or (None, None)
    layers = {"layer": first, "low": first, "high": last}
    known = {"family": f"flips in {of_asked}", "asked": 60, "of_asked": of_asked}
    return {**known, "low": low, "high": high, "crossing": layers}


SELDOM_READ_MORE = {"word": "hmm", "n": 5, "lift": 1.8, "low": 1.5, "high": 2.2}
OFTEN_READ_LESS = {"word": "wait", "n": 9, "lift": 0.6, "low": 0.5, "high": 0.8}


@pytest.mark.parametrize(
    ("claim", "record", "entries", "said"),
    [
        (MATH, "answer_quality", {"difference": 0.7, "ci_low": 0.6, "ci_high": 0.8}, HOLDS),
        (MATH, "answer_quality", {"difference": 0.04, "ci_low": 0.01, "ci_high": 0.07}, WEAK),
        (MATH, "answer_quality", {"difference": -0.1, "ci_low": -0.2, "ci_high": -0.01}, OPPOSITE),
        (MATH, "answer_quality", {"difference": 0.1, "ci_low": -0.01, "ci_high": 0.2}, CANNOT_TELL),
        (QUERIES, "open_answers", {"difference": 0.5, "ci_low": 0.3, "ci_high": 0.7}, HOLDS),
        (QUERIES, "open_answers", {"difference": 0.1, "ci_low": -0.1, "ci_high": 0.3}, CANNOT_TELL),
        (QUERIES, "open_answers", {"difference": None}, CANNOT_TELL),
        (ATTENDS, "segment_attention", {"lift_reasoning": 0.3}, OPPOSITE),
        (ATTENDS, "segment_attention", {"lift_reasoning": 1.2}, WEAK),
        (HEADS, "reasoning_focus_heads", {"beyond_distance": 8}, HOLDS),
        (HEADS, "reasoning_focus_heads", {"beyond_distance": 3}, WEAK),
        (HEADS, "reasoning_focus_heads", {"beyond_distance": 0}, CANNOT_TELL),
        (HEADS, "reasoning_focus_heads", {"by_distance": None}, CANNOT_TELL),
        (MIDDLE, "reasoning_focus_heads", {"in_middle": 7}, HOLDS),
        (MIDDLE, "reasoning_focus_heads", {"in_middle": 5}, CANNOT_TELL),
        (MIDDLE, "reasoning_focus_heads", {"in_middle": 0}, OPPOSITE),
        (MIDDLE, "reasoning_focus_heads", {"in_middle": 7, "p_central": 0.1}, CANNOT_TELL),
        (MIDDLE, "reasoning_focus_heads", {"in_middle": 7, "p_central": 0.01}, HOLDS),
        (MIDDLE, "reasoning_focus_heads", {"in_middle": 0, "p_central": 0.999}, OPPOSITE),
        (
            TRACKS,
            "trajectory_tracking",
            {"rfh_beyond": 0.5, "rfh_low": 0.4, "rfh_high": 0.6},
            HOLDS,
        ),
        (  # the best of many heads, on few traces
            TRACKS,
            "trajectory_tracking",
            {"rfh_beyond": 0.5, "rfh_low": 0.4, "rfh_high": 0.6, "rfh_p": 0.25},
            CANNOT_TELL,
        ),
        (TRACKS, "trajectory_tracking", {"rfh": None}, CANNOT_TELL),
        (CUES, "cue_lift", {"words": [SELDOM_READ_MORE, OFTEN_READ_LESS]}, OPPOSITE),
        (CUES, "cue_lift", {"words": [SELDOM_READ_MORE]}, HOLDS),
        (CUES, "cue_lift", {"words": [{**OFTEN_READ_LESS, "low": None}]}, CANNOT_TELL),
        (CUES, "cue_lift", {"words": [], "n": 0}, CANNOT_TELL),
        (CUES, "cue_lift", {"words": [{**SELDOM_READ_MORE, "n": 2}]}, CANNOT_TELL),
        (DEBUGGING, "failed_traces", {"n": 0}, CANNOT_TELL),
        (
            FLIPS,
            "activation_patching",
            {"families": [family(1.0, 0.9, 1.0)]},
            HOLDS,
        ),
        (  # a mixture of families is no population
            FLIPS,
            "activation_patching",
            {"families": [family(1.0, 0.9, 1.0), family(0.2, 0.09, 0.4)]},
            CANNOT_TELL,
        ),
        (
            FLIPS,
            "activation_patching",
            {"families": [family(0, 0, 0.06)]},
            OPPOSITE,
        ),
        (
            FLIPS,
            "activation_patching",
            {"families": [family(0, 0, 0.2)]},
            CANNOT_TELL,
        ),
        (FLIPS, "contrast_pairs", {"kept": 0}, CANNOT_TELL),
        (THROUGH, "activation_patching", {"families": [family(crossing=(3, 3))]}, HOLDS),
        (THROUGH, "activation_patching", {"families": [family(crossing=(4, 4))]}, HOLDS),  # 3 moves
        (THROUGH, "activation_patching", {"families": [family(crossing=(2, 2))]}, OPPOSITE),
        (THROUGH, "activation_patching", {"families": [family(crossing=(5, 5))]}, OPPOSITE),
        (THROUGH, "activation_patching", {"families": [family(crossing=(3, 5))]}, CANNOT_TELL),
        (THROUGH, "activation_patching", {"families": [family(crossing=None)]}, CANNOT_TELL),
        (THROUGH, "activation_patching", {"families": [family(0.1, 0.05, 0.2)]}, CANNOT_TELL),
        (  # a family that does not flip crosses nothing that matters
            THROUGH,
            "activation_patching",
            {"families": [family(crossing=(3, 3)), family(0.1, 0.05, 0.2, crossing=(5, 5))]},
            HOLDS,
        ),
    ],
)
def test_a_run_is_judged_by_its_records(claim, record, entries, said):
    whole = {
        "answer_quality": {"n": 50},
        "open_answers": {"n": 40},
        "segment_attention": {"answer": {"reasoning": 0.3}},
        "reasoning_focus_heads": {
            "k": 10,
            "by_distance": 0.2,
            "beyond_distance": 5,
            "in_middle": 3,
            "expected_in_middle": 10 / 3,
        },
        "trajectory_tracking": {"rfh": "L1.H1", "n": 9, "rfh_p": 0.001},
        "activation_patching": {
            "n_layers": 6,
        },
    }
    assert own(**{record: {**whole.get(record, {}), **entries}})[claim] == said


@pytest.mark.parametrize(
    ("lift", "untrained", "said"),
    [
        ((0.9, None, None), 1.02, OPPOSITE),
        ((1.01, None, None), 1.02, CANNOT_TELL),
        ((0.998, None, None), 0.997, CANNOT_TELL),  # random weights are nearly uniform
        ((1.1, None, None), 1.02, WEAK),
        ((1.3, None, None), 1.02, HOLDS),
        ((1.3, 1.01, 1.6), 1.02, CANNOT_TELL),
        ((0.9, 0.8, 1.0), 1.02, CANNOT_TELL),
    ],
)
def test_a_lift_that_untrained_models_reach_too_tells_nothing(lift, untrained, said):
    names = ("lift_reasoning", "lift_low", "lift_high")
    attention = {**dict(zip(names, lift, strict=True)), "answer": {"reasoning": 0.4}}
    twins = {"n": 3, "untrained": {"lift": untrained}}
    assert own(segment_attention=attention, looking=twins)[ATTENDS] == said


def test_what_lies_below_untrained_models_does_not_contradict():
    """They are no null from below: most random weights lie below the largest of them."""
    walk = {
        "rfh": "L1.H1",
        "n": 9,
        "rfh_beyond": -0.07,
        "rfh_low": -0.17,
        "rfh_high": 0.04,
    }
    twins = {"n": 3, "untrained": {"beyond": 0.17}}
    walk["rfh_p"] = 0.8
    assert own(trajectory_tracking=walk, untrained_following=twins)[TRACKS] == CANNOT_TELL
    walk |= {"rfh_beyond": -0.5, "rfh_low": -0.6, "rfh_high": -0.4}
    assert own(trajectory_tracking=walk, untrained_following=twins)[TRACKS] == OPPOSITE


def test_untrained_models_set_what_heads_must_exceed():
    ranking = {"k": 10, "by_distance": 0.2, "beyond_distance": 8, "in_middle": 3}
    ranking["expected_in_middle"] = 3.3
    twins = {"n": 2, "untrained": {"beyond_distance": 6}}
    assert own(reasoning_focus_heads=ranking)[HEADS] == HOLDS
    assert own(reasoning_focus_heads=ranking, untrained_ranking=twins)[HEADS] == CANNOT_TELL
    ranking["in_middle"] = 8
    assert own(reasoning_focus_heads=ranking)[MIDDLE] == HOLDS
    twins["untrained"]["in_middle"] = 6
    assert own(reasoning_focus_heads=ranking, untrained_ranking=twins)[MIDDLE] == CANNOT_TELL


def test_the_papers_models_are_judged_by_what_it_prints():
    verdicts = judge({"default": summary()})
    small, full = verdicts.of("R1-Qwen-1.5B (paper)"), verdicts.of("R1-Full (paper)")
    assert small[MATH] == HOLDS and full[MATH] == HOLDS
    assert small[QUERIES] == HOLDS and full[QUERIES] == CANNOT_TELL  # p = 0.63
    assert full[GAIN] == NOT_TESTED
    assert verdicts.of("R1-Llama-8B (paper)")[GAIN] == HOLDS
    assert small[GAIN] == CANNOT_TELL  # 8.5 against 5.5 points
    assert small[FLIPS] == CANNOT_TELL  # no flip is printed
    # its seven middle heads of ten belong to five of eight key/value groups
    assert verdicts.of("R1-Qwen-7B (paper)")[MIDDLE] == CANNOT_TELL
    assert verdicts.of("R1-Llama-8B (paper)")[THROUGH] == HOLDS  # 15 of 32
    assert small[THROUGH] == CANNOT_TELL  # 18 to 20 of 28: the border lies between
    assert small[DEBUGGING] == CANNOT_TELL


def test_an_archive_may_lack_a_number_and_a_run_may_not():
    older = {"default": summary(), "old": summary(cue_lift={"n": 9})}
    with pytest.raises(KeyError):
        judge(older)
    older["old"]["archive"] = {"hours": 1}
    assert judge(older).of("r2a-tiny (old)")[CUES] == NOT_TESTED


def test_a_cell_says_its_number_and_leads_to_its_page():
    patching = {"families": [family(1, 0.94, 1.0, crossing=None)], "n_layers": 6}
    table = judge({"default": summary(activation_patching=patching)}).table("../")
    told = "100 % (94 % to 100 %) of 60 answers asked flip"
    cell = f'title="{told}" aria-label="holds: {told}">holds</a></td>'
    assert f'<td class="holds"><a href="../stages/05_activation_patching.html" {cell}' in table
    assert table.count("<td") == len(CLAIMS) * 5 and "\n" not in table


def test_what_holds_of_a_model_that_ignores_its_reasoning_is_told():
    walk = {"rfh": "L1.H1", "n": 9, "rfh_beyond": 0.5, "rfh_low": 0.4, "rfh_high": 0.6}
    walk["rfh_p"] = 0.001
    records = {"model": {"name": "r2a-ignorer"}, "trajectory_tracking": walk}
    told = judge({"default": summary(), "ignorer": summary(**records)}).controls()
    assert f"These hold for it, or weakly: “{TRACKS}”. What holds for them is no sign" in told
    assert judge({"default": summary()}).controls() == ""


def test_a_name_does_nothing_in_the_page():
    name = '<img onerror="x">{{ 1 }}'
    table = judge({"default": summary(model={"name": name})}).table()
    assert "<img" not in table and "{{" not in table


def test_what_models_agree_on_is_told_from_their_verdicts():
    told = judge(
        {
            "default": summary(
                segment_attention={"answer": {"reasoning": 0.3}, "lift_reasoning": 1.5}
            )
        }
    ).told()
    agreed, _, fewer = told.partition("Fewer than two models tell anything of these")
    assert "agree on these claims: reasoning makes answers to problems better" in agreed
    assert "they find the error of a failed trace" in fewer and "(4 cannot tell)" not in fewer
