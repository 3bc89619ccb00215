"""The paper's claims, and the number by which each is judged: of a run, and of the paper's models.

The number comes from a run's records; of the paper's models it is what the paper prints, with an
interval where the printed t or p gives one. This file knows the claims and the records' entries;
how stages find their numbers it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from r2a_utils.models.registry import shape_of
from r2a_utils.paper import published
from r2a_utils.publishing.evidence import Evidence
from r2a_utils.publishing.findings import Records, middle_third
from r2a_utils.publishing.quoted_numbers import number, percent
from r2a_utils.stats import wilson_interval


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: where it is tested, by what number, and how it is read.

    own: the evidence in a run's records, None where the run has not tested it; paper: by model, in
    the numbers that the paper prints and (`records` of the main run) those computed from its data.
    """

    claim: str
    stage: str
    measure: str
    own: Callable[[Records], Evidence | None]
    paper: Callable[[Records], Mapping[str, Evidence]]


def _interval(shown: Callable[[float], str], value: float, low: float, high: float) -> str:
    return f"{shown(value)} ({shown(low)} to {shown(high)})"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _spread(difference: float, p: float) -> float:
    """The standard error of a difference whose two-sided p (normal) is printed."""
    return abs(difference) / NormalDist().inv_cdf(1 - p / 2)


SOME_FLIP = 0.1  # a share of flips that is none, of which the paper's claim would be empty
_Z = NormalDist().inv_cdf(0.975)
_PERFECT = "R1-Full"  # the model that the distills were distilled from


def _math(records: Records) -> Evidence | None:
    if "answer_quality" not in records:
        return None
    q = records["answer_quality"]
    ends = q["difference"], q["ci_low"], q["ci_high"]
    told = f"{_interval(_points, *ends)} percentage points, n = {q['n']}"
    return Evidence(ends[0], 0, 0.05, told, *ends[1:], n=q["n"])


def _queries(records: Records) -> Evidence | None:
    if "open_answers" not in records:
        return None
    scores = records["open_answers"]
    if scores["difference"] is None:
        return Evidence(None, 0, 0.25, "no answer was scored in both conditions")
    ends = scores["difference"], scores["ci_low"], scores["ci_high"]
    told = f"{_interval(_signed, *ends)} of 10 points, n = {scores['n']}"
    return Evidence(ends[0], 0, 0.25, told, *ends[1:], n=scores["n"])


def _printed_differences() -> dict[str, tuple[float, float, int]]:
    """Difference, standard error and n on MATH-500, by model."""
    rows = published()["stage1_math500"]["rows"]
    differences = {r["model"]: r["with_reasoning"] - r["without_reasoning"] for r in rows}
    return {r["model"]: (d := differences[r["model"]], d / r["t"], r["n"]) for r in rows}


def _printed_math(records: Records) -> dict[str, Evidence]:
    found = {}
    for model, (value, error, n) in _printed_differences().items():
        low, high = value - _Z * error, value + _Z * error
        told = f"{_interval(_points, value, low, high)} percentage points, n = {n}"
        found[model] = Evidence(value, 0, 0.05, told, low, high)
    return found


def _printed_queries(records: Records) -> dict[str, Evidence]:
    found = {}
    for row in published()["stage1_wildbench"]["rows"]:
        value = row["with_reasoning"][-1] - row["without_reasoning"][-1]
        error = _Z * _spread(value, row["p"][-1])
        ends = value, value - error, value + error
        told = f"{_interval(_signed, *ends)} of 10 points, n = {row['n'][-1]}"
        found[row["model"]] = Evidence(value, 0, 0.25, told, *ends[1:])
    return found


def _printed_gain(records: Records) -> dict[str, Evidence]:
    printed = _printed_differences()
    full, full_error, _ = printed.pop(_PERFECT)
    found = {}
    for model, (value, error, _) in printed.items():
        more = value - full
        half = _Z * (error**2 + full_error**2) ** 0.5
        told = f"{_interval(_points, more, more - half, more + half)} points more than {_PERFECT}"
        found[model] = Evidence(more, 0, 0.05, told, more - half, more + half)
    return found


def _attends(records: Records) -> Evidence | None:
    if "segment_attention" not in records:
        return None
    attention = records["segment_attention"]
    ends = attention.get("lift_low"), attention.get("lift_high")  # not in older archives
    mass, untrained = attention["answer"]["reasoning"], _untrained(records, "looking", "lift")
    return _lift(attention["lift_reasoning"], mass, *ends, untrained)


def _lift(
    lift: float,
    mass: float,
    low: float | None = None,
    high: float | None = None,
    untrained: float | None = None,
) -> Evidence:
    shown = number(lift) if low is None else _interval(number, lift, low, high)
    told = (
        f"{shown} times a uniform head's share, mean over heads; {percent(mass)} of the attention"
    )
    told += "" if untrained is None else f"; untrained up to {number(untrained)}"
    told += "; no interval" if low is None else ""
    return Evidence(lift, 1, 1.25, told, low, high, untrained)


def _untrained(records: Records, record: str, name: str) -> float | None:
    """The largest value of untrained models that a run has looked at, None where of none."""
    twins = records.get(record, {})
    return twins["untrained"].get(name) if twins.get("n") else None


def _printed_attends(records: Records) -> dict[str, Evidence]:
    models = records.get("published_heads", {}).get("models", {})
    return {model: _lift(found["lift"], found["mass"]) for model, found in models.items()}


def _share(
    k: int, n: int, null: float, large: float, told: str, untrained: float | None = None
) -> Evidence:
    ends = k / n, *wilson_interval(k, n)
    told = f"{k} of {n} {told}: {_interval(percent, *ends)}, {percent(null)} by chance"
    told += "" if untrained is None else f"; untrained up to {percent(untrained)}"
    return Evidence(ends[0], null, large, told, *ends[1:], untrained)


def _heads(records: Records) -> Evidence | None:
    if "reasoning_focus_heads" not in records:
        return None
    ranking = records["reasoning_focus_heads"]
    if ranking["by_distance"] is None:
        return Evidence(None, 0, 0.5, "too few traces for distance profiles")
    k, most = ranking["k"], _untrained(records, "untrained_ranking", "beyond_distance")
    told = "top heads read the reasoning more than their distance profiles"
    null = 0.025  # each head by its own 95 % interval
    untrained = None if most is None else most / k
    return _share(ranking["beyond_distance"], k, null, 0.5, told, untrained)


def _middle(records: Records) -> Evidence | None:
    if "reasoning_focus_heads" not in records:
        return None
    ranking = records["reasoning_focus_heads"]
    k, most = ranking["k"], _untrained(records, "untrained_ranking", "in_middle")
    untrained = None if most is None else most / k
    found = _in_middle(ranking["in_middle"], k, ranking["expected_in_middle"] / k, untrained)
    # the heads of one key/value group are not k witnesses
    p = ranking.get("p_central", 0)
    if 0.025 <= p <= 0.975:
        return replace(found, value=None, told=f"{found.told}; p = {number(p)} by whole groups")
    return found


def _in_middle(
    inside: int,
    k: int,
    chance: float,
    untrained: float | None = None,
    told: str = "heads sit in the middle third of the layers",
) -> Evidence:
    return _share(inside, k, chance, 0.5, told, untrained)


def _printed_middle(records: Records) -> dict[str, Evidence]:
    """Of the printed heads those of one key/value group count once: they are not independent."""
    paper, found = published(), {}
    for model, hub_id in paper["models"].items():
        shape = shape_of(hub_id)
        size = shape["num_attention_heads"] // shape["num_key_value_heads"]
        heads = paper["stage2_reasoning_focus_heads_top10"][model]
        groups = sorted({(layer, head // size) for layer, head in heads})
        layers = shape["num_hidden_layers"]
        every = middle_third([[layer, 0] for layer in range(layers)], layers).value
        inside = int(middle_third(groups, layers).value)
        told = f"key/value groups of the {len(heads)} heads sit in the middle third of the layers"
        found[model] = _in_middle(inside, len(groups), every / layers, told=told)
    return found


def _tracks(records: Records) -> Evidence | None:
    if "trajectory_tracking" not in records:
        return None
    walk = records["trajectory_tracking"]
    if walk["rfh"] is None:
        return Evidence(None, 0, 0.3, "one answer only, or none of the heads walks forwards")
    untrained = _untrained(records, "untrained_following", "beyond")
    ends = walk["rfh_beyond"], walk["rfh_low"], walk["rfh_high"]
    told = f"the one that follows best, {walk['rfh']}: correlation beyond distance "
    told += f"{_interval(number, *ends)}, p = {number(walk['rfh_p'])} over all heads"
    told += f", n = {walk['n']}"
    told += "" if untrained is None else f"; heads of untrained models up to {number(untrained)}"
    value = None if ends[1] > 0 and walk["rfh_p"] >= 0.05 else ends[0]
    return Evidence(value, 0, 0.3, told, *ends[1:], untrained, walk["n"])


def _cues(records: Records) -> Evidence | None:
    if "cue_lift" not in records:
        return None
    words = [word for word in records["cue_lift"]["words"] if word["lift"] is not None]
    if not words:
        return Evidence(None, 1, 1.25, f"{records['cue_lift']['n']} traces with a cue")
    most = max(words, key=lambda word: word["n"])
    ends = most["lift"], most["low"], most["high"]
    if most["low"] is None:
        return Evidence(None, 1, 1.25, f"“{most['word']}” in {most['n']} traces only")
    told = f"after “{most['word']}” {_interval(number, *ends)} times the attention on matched text"
    return Evidence(ends[0], 1, 1.25, f"{told}, n = {most['n']}", *ends[1:], n=most["n"])


def _debugging(records: Records) -> Evidence | None:
    if "failed_traces" not in records:
        return None
    failed = records["failed_traces"]
    if not failed["n"]:
        return Evidence(None, 0, 0.5, "no failed trace whose first error is known")
    ends = failed["rfh_rate"], failed["rfh_ci_low"], failed["rfh_ci_high"]
    told = f"the sentence read most holds the first error in {_interval(percent, *ends)}"
    told += f" of {failed['n']} failed traces, {percent(failed['rfh_chance'])} by chance"
    return Evidence(ends[0], failed["rfh_chance"], 0.5, told, *ends[1:], n=failed["n"])


def _flips(records: Records) -> Evidence | None:
    if "activation_patching" not in records:
        if "contrast_pairs" in records:
            return Evidence(None, SOME_FLIP, 0.5, "no pair is told apart by the model")
        return None
    families = records["activation_patching"]["families"]
    least = min(families, key=lambda family: family["of_asked"])
    value, low, high = least["of_asked"], least["low"], least["high"]
    told = f"{_interval(percent, value, low, high)} of {least['asked']} answers asked flip"
    others = [f for f in families if f is not least]
    if others:
        rates = ", ".join(f"{f['family']} {percent(f['of_asked'])}" for f in others)
        told += f" in the family {least['family']}, the least of {len(families)}: {rates}"
    return Evidence(value, SOME_FLIP, 0.5, told, low, high)


def _printed_effects(records: Records) -> dict[str, Evidence]:
    """No verdict: a restored difference is no flip, and erasing a name restores half of it too."""
    paper = published()
    effects = paper["stage3_patching"]["mean_early_layer_effect"]
    found = {}
    for model in paper["models"]:
        two = " and ".join(number(effect) for effect in effects[model])
        told = f"{two} of the logit difference are restored in the early layers"
        found[model] = Evidence(
            None, SOME_FLIP, 0.5, told + "; how many answers flip is not printed"
        )
    return found


def _crossing(records: Records) -> Evidence | None:
    if "activation_patching" not in records:
        return None
    patching = records["activation_patching"]
    flipping = [family for family in patching["families"] if family["low"] > SOME_FLIP]
    if not flipping:
        return Evidence(None, 0, 0, "too few answers flip to say in which layers")
    crossings = [family["crossing"] for family in flipping]
    if any(crossing["layer"] is None for crossing in crossings):
        return Evidence(None, 0, 0, "the two curves do not cross")
    # What is found behind the crossing was moved by the layer before it.
    first, last = min(c["low"] for c in crossings), max(c["high"] for c in crossings)
    return _through_middle(max(first - 1, 0), max(last - 1, 0), patching["n_layers"])


def _through_middle(first: int, last: int, n_layers: int) -> Evidence:
    """How far within the middle third the layers lie that move it; below 0 is outside."""
    inside = [1 / 6 - abs((layer + 0.5) / n_layers - 0.5) for layer in (first, last)]
    layers = f"in layer {first}" if first == last else f"in layers {first} to {last}"
    told = f"the two curves cross {layers} of {n_layers}"
    return Evidence(sum(inside) / 2, 0, 0, told, min(inside), max(inside))


# published.json tells the layers in a sentence
_PRINTED_CROSSINGS = {"R1-Llama-8B": (15, 15), "R1-Qwen-7B": (18, 20), "R1-Qwen-1.5B": (18, 20)}


def _printed_crossings(records: Records) -> dict[str, Evidence]:
    models = published()["models"]
    return {
        model: _through_middle(*layers, shape_of(models[model])["num_hidden_layers"])
        for model, layers in _PRINTED_CROSSINGS.items()
    }


def _unprinted(why: str) -> Callable[[Records], dict[str, Evidence]]:
    """A claim that the paper makes of its distills without a number that could be held against."""
    return lambda records: dict.fromkeys(published()["models"], Evidence(None, 0, 0, why))


def _nothing(records: Records) -> None:
    return None


CLAIMS = (
    Claim(
        "Reasoning makes answers to problems better",
        "02_answer_quality",
        "share of right answers with reasoning less that without; holds from 5 points",
        _math,
        _printed_math,
    ),
    Claim(
        "It makes answers to real queries better",
        "02_answer_quality",
        "difference in a judge's score, of 10; holds from 0.25",
        _queries,
        _printed_queries,
    ),
    Claim(
        "Distills gain more than the model they come from",
        "02_answer_quality",
        "difference between the two gains; holds from 5 points",
        _nothing,
        _printed_gain,
    ),
    Claim(
        "The answer attends to the reasoning",
        "03_segment_attention",
        "attention over a uniform head's (lift), null 1, beyond what untrained models have; holds "
        "from 1.25",
        _attends,
        _printed_attends,
    ),
    Claim(
        "There are Reasoning-Focus Heads",
        "04_reasoning_focus_heads",
        "share of the top heads that read the reasoning more than distance explains, against "
        "untrained models; holds from one half",
        _heads,
        _unprinted("the heads are ranked by mass and held against no null"),
    ),
    Claim(
        "They sit in the middle layers",
        "04_reasoning_focus_heads",
        "share of the heads in the middle third, against chance and untrained models, where whole "
        "key/value groups drawn at random seldom do so; holds from one half",
        _middle,
        _printed_middle,
    ),
    Claim(
        "They follow the reasoning as it goes",
        "04b_what_the_heads_do",
        "rank correlation beyond distance of the Reasoning-Focus Head that follows best, against "
        "the best heads of untrained models, where p over all heads is below 0.05; holds from 0.3",
        _tracks,
        _unprinted("shown in single cases, no number is printed"),
    ),
    Claim(
        "They attend to words of self-reflection",
        "04b_what_the_heads_do",
        "attention after the most frequent cue over that on matched text, null 1; holds from 1.25",
        _cues,
        _unprinted("shown in single cases, no number is printed"),
    ),
    Claim(
        "They find the error of a failed trace",
        "04c_failed_traces",
        "share of failed traces in which the sentence read most holds the first error, against "
        "chance; holds from one half",
        _debugging,
        _unprinted("shown in single cases, no number is printed"),
    ),
    Claim(
        "Patching one token of the reasoning flips the answer",
        "05_activation_patching",
        "share of the answers asked that flip, in the family of problems where fewest do, null "
        "0.1; holds from one half (the paper prints no flips)",
        _flips,
        _printed_effects,
    ),
    Claim(
        "The answer takes it up in the middle layers",
        "05_activation_patching",
        "whether the layer in which the two curves of patching cross lies in the middle third, "
        "in families in which more than a tenth of the answers flip",
        _crossing,
        _printed_crossings,
    ),
)
