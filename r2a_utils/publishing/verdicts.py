"""What the paper claims, and what each model of the book and the paper's own numbers say of it.

A claim is judged from one number, by one rule, which is `verdict`. The number comes from a run's
records; of the paper's models it is what the paper prints, with an interval where the printed t or
p gives one. A verdict says what is shown, and nothing of why: a null stands in the table like a
hit. This file knows the claims and the records' entries; how stages find their numbers it does not.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from markupsafe import Markup
from scipy.stats import binomtest

from r2a_utils.models.registry import shape_of
from r2a_utils.paper import published
from r2a_utils.publishing.book_runs import MAIN_PAGES
from r2a_utils.publishing.findings import Records, middle_third
from r2a_utils.publishing.foreign_text import inert
from r2a_utils.publishing.quoted_numbers import number, percent

# Models of the book that do not use their reasoning, and how that is known.
CONTROLS = {
    "r2a-ignorer": "was made to answer from a note in the question, whatever its reasoning says",
    "r2a-untrained": "has random weights",
}
HOLDS, WEAK, OPPOSITE = "holds", "weak", "opposite"
CANNOT_TELL, NOT_TESTED = "cannot tell", "not tested"


@dataclass(frozen=True)
class Evidence:
    """One number that speaks to a claim, with its 95 % interval where it has one.

    null: the value at which the claim would be empty; larger values speak for the claim. large:
    from here on it holds and is not weak. `told` says the number and the interval in words.
    """

    value: float | None
    null: float
    large: float
    told: str
    low: float | None = None
    high: float | None = None


def verdict(evidence: Evidence | None) -> str:
    """The rule: what one number says of a claim.

    *not tested* without a number's record, *cannot tell* without a number or where the interval
    holds the null value, *opposite* where all of it lies below, else *holds* if the number itself
    is as large as the claim needs, and *weak* if it is not. A number without an interval stands
    for its interval.
    """
    if evidence is None:
        return NOT_TESTED
    if evidence.value is None:
        return CANNOT_TELL
    low = evidence.value if evidence.low is None else evidence.low
    high = evidence.value if evidence.high is None else evidence.high
    if low <= evidence.null <= high:
        return CANNOT_TELL
    if high < evidence.null:
        return OPPOSITE
    return HOLDS if evidence.value >= evidence.large else WEAK


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
    return Evidence(ends[0], 0, 0.05, told, ends[1], ends[2])


def _queries(records: Records) -> Evidence | None:
    if "open_answers" not in records:
        return None
    scores = records["open_answers"]
    if scores["difference"] is None:
        return Evidence(None, 0, 0.25, "no answer was scored in both conditions")
    ends = scores["difference"], scores["ci_low"], scores["ci_high"]
    told = f"{_interval(_signed, *ends)} of 10 points, n = {scores['n']}"
    return Evidence(ends[0], 0, 0.25, told, *ends[1:])


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
    attention, twins = records["segment_attention"], records.get("looking", {})
    untrained = twins["untrained"]["lift"] if twins.get("n") else 1
    return _lift(attention["lift_reasoning"], attention["answer"]["reasoning"], untrained)


def _lift(lift: float, mass: float, untrained: float = 1) -> Evidence:
    """A lift above 1 that untrained models reach too may be none."""
    told = f"{number(lift)} times a uniform head's share; {percent(mass)} of the attention"
    told += "" if untrained <= 1 else f"; untrained up to {number(untrained)}"
    low = 1 if 1 <= lift <= untrained else lift
    return Evidence(lift, 1, 1.25, told + "; mean over heads, no interval", low, lift)


def _printed_attends(records: Records) -> dict[str, Evidence]:
    models = records.get("published_heads", {}).get("models", {})
    return {model: _lift(found["lift"], found["mass"]) for model, found in models.items()}


def _share(k: int, n: int, null: float, large: float, told: str) -> Evidence:
    interval = binomtest(k, n).proportion_ci(method="wilson")
    ends = k / n, float(interval.low), float(interval.high)
    told = f"{k} of {n} {told}: {_interval(percent, *ends)}, {percent(null)} by chance"
    return Evidence(ends[0], null, large, told, *ends[1:])


def _heads(records: Records) -> Evidence | None:
    if "reasoning_focus_heads" not in records:
        return None
    ranking = records["reasoning_focus_heads"]
    if ranking["by_distance"] is None:
        return Evidence(None, 0, 0.5, "too few traces for distance profiles")
    twins = records.get("untrained_ranking", {})
    best = twins["untrained"].get("beyond_distance", 0) if twins.get("n") else 0
    null = max(0.025, best / ranking["k"])  # each head by its own 95 % interval
    told = "top heads read the reasoning more than their distance profiles"
    return _share(ranking["beyond_distance"], ranking["k"], null, 0.5, told)


def _middle(records: Records) -> Evidence | None:
    if "reasoning_focus_heads" not in records:
        return None
    ranking = records["reasoning_focus_heads"]
    k = ranking["k"]
    twins = records.get("untrained_ranking", {})
    untrained = twins["untrained"].get("in_middle", 0) if twins.get("n") else 0
    return _in_middle(ranking["in_middle"], k, max(ranking["expected_in_middle"], untrained) / k)


def _in_middle(inside: int, k: int, chance: float) -> Evidence:
    return _share(inside, k, chance, 0.5, "heads sit in the middle third of the layers")


def _printed_middle(records: Records) -> dict[str, Evidence]:
    paper, found = published(), {}
    for model, hub_id in paper["models"].items():
        heads = paper["stage2_reasoning_focus_heads_top10"][model]
        layers = shape_of(hub_id)["num_hidden_layers"]
        every = middle_third([[layer, 0] for layer in range(layers)], layers).value
        inside = int(middle_third(heads, layers).value)
        found[model] = _in_middle(inside, len(heads), every / layers)
    return found


def _tracks(records: Records) -> Evidence | None:
    if "trajectory_tracking" not in records:
        return None
    walk = records["trajectory_tracking"]
    if walk["beyond"] is None:
        return Evidence(None, 0, 0.3, "one answer only")
    twins = records.get("untrained_following", {})
    null = max(0, twins["untrained"].get("beyond", 0) if twins.get("n") else 0)
    ends = walk["beyond"], walk["beyond_low"], walk["beyond_high"]
    told = f"best head {walk['best']}: correlation beyond distance {_interval(number, *ends)}"
    told += f", n = {walk['n']}; untrained up to {number(null)}"
    return Evidence(ends[0], null, 0.3, told, *ends[1:])


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
    return Evidence(ends[0], 1, 1.25, f"{told}, n = {most['n']}", *ends[1:])


def _debugging(records: Records) -> Evidence | None:
    if "failed_traces" not in records:
        return None
    failed = records["failed_traces"]
    if not failed["n"]:
        return Evidence(None, 0, 0.5, "no failed trace whose first error is known")
    ends = failed["rfh_rate"], failed["rfh_ci_low"], failed["rfh_ci_high"]
    told = f"the sentence read most holds the first error in {_interval(percent, *ends)}"
    told += f" of {failed['n']} failed traces, {percent(failed['rfh_chance'])} by chance"
    return Evidence(ends[0], failed["rfh_chance"], 0.5, told, *ends[1:])


def _flips(records: Records) -> Evidence | None:
    if "activation_patching" not in records:
        if "contrast_pairs" in records:
            return Evidence(None, SOME_FLIP, 0.5, "no pair is told apart by the model")
        return None
    patching = records["activation_patching"]
    value, low, high = (patching[name] for name in ("flips_of_asked", "asked_low", "asked_high"))
    told = f"{_interval(percent, value, low, high)} of {patching['asked']} answers asked flip"
    return Evidence(value, SOME_FLIP, 0.5, told, low, high)


def _printed_effects(records: Records) -> dict[str, Evidence]:
    paper = published()
    effects = paper["stage3_patching"]["mean_early_layer_effect"]
    found = {}
    for model in paper["models"]:
        value = max(effects[model])
        told = f"{number(value)} of the logit difference is restored in the early layers"
        found[model] = Evidence(
            value, SOME_FLIP, 0.5, told + "; how many answers flip is not printed"
        )
    return found


def _crossing(records: Records) -> Evidence | None:
    if "activation_patching" not in records:
        return None
    patching = records["activation_patching"]
    if patching["asked_low"] <= SOME_FLIP:
        return Evidence(None, 0, 0, "too few answers flip to say in which layers")
    if patching["crossing"] is None:
        return Evidence(None, 0, 0, "the two curves do not cross")
    crossing = patching["crossing"]
    return _through_middle(crossing, crossing, patching["n_layers"])


def _through_middle(first: int, last: int, n_layers: int) -> Evidence:
    """How far within the middle third of the layers the curves cross; below 0 is outside."""
    inside = [1 / 6 - abs((layer + 0.5) / n_layers - 0.5) for layer in (first, last)]
    layers = f"layer {first}" if first == last else f"layers {first} to {last}"
    told = f"the two curves cross before {layers} of {n_layers}"
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
        "attention over a uniform head's (lift), null 1, above what untrained models have; holds "
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
        "share of the heads in the middle third, against chance and untrained models; holds from "
        "one half",
        _middle,
        _printed_middle,
    ),
    Claim(
        "They follow the reasoning as it goes",
        "04b_what_the_heads_do",
        "the best head's rank correlation beyond distance, against untrained models; holds from "
        "0.3",
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
        "share of the answers asked that flip (of the paper: share of the logit difference "
        "restored), null 0.1; holds from one half",
        _flips,
        _printed_effects,
    ),
    Claim(
        "The answer takes it up in the middle layers",
        "05_activation_patching",
        "whether the two curves of patching cross within the middle third of the layers, where "
        "more than a tenth of the answers flip",
        _crossing,
        _printed_crossings,
    ),
)


@dataclass(frozen=True)
class Column:
    """One model: its name, the evidence by claim, and the pages of its run by stage."""

    model: str
    evidence: Sequence[Evidence | None]
    pages: Mapping[str, str]


@dataclass(frozen=True)
class Verdicts:
    """The table of claims by models, as a page asks for it."""

    columns: Sequence[Column]

    def of(self, model: str) -> dict[str, str]:
        """The verdicts of one model by claim, for the prose and the tests."""
        [column] = [column for column in self.columns if column.model == model]
        return {c.claim: verdict(e) for c, e in zip(CLAIMS, column.evidence, strict=True)}

    def counts(self, claim: str) -> dict[str, int]:
        """How many models have each verdict of a claim."""
        found = [self.of(column.model)[claim] for column in self.columns]
        return {name: found.count(name) for name in dict.fromkeys(found)}

    def told(self) -> Markup:
        """Which claims all models agree on that tell anything, and on which they differ, in words.

        A model tells something where a claim holds, holds weakly or is contradicted.
        """
        sides: dict[str, list[str]] = {"agree": [], "differ": [], "untold": []}
        for claim in CLAIMS:
            counts = self.counts(claim.claim)
            speak = counts.get(HOLDS, 0) + counts.get(WEAK, 0), counts.get(OPPOSITE, 0)
            side = "untold" if sum(speak) < 2 else "differ" if all(speak) else "agree"
            told = ", ".join(f"{n} {name}" for name, n in counts.items() if name != NOT_TESTED)
            sides[side].append(f"{claim.claim[0].lower()}{claim.claim[1:]} ({told or NOT_TESTED})")
        leads = {
            "agree": "All models that tell anything agree on",
            "differ": "They contradict each other on",
            "untold": "Fewer than two models tell anything of",
        }
        return Markup(
            " ".join(f"{leads[s]}: {inert('; '.join(c))}." for s, c in sides.items() if c)
        )

    def controls(self) -> Markup:
        """Which claims hold of models that are known not to use their reasoning, in words.

        What holds of one of them is no sign that an answer uses its reasoning. Empty where the book
        shows no such model.
        """
        said = []
        for model, known in CONTROLS.items():
            if model in {column.model for column in self.columns}:
                found = self.of(model)
                claims = [claim for claim, verdict in found.items() if verdict in (HOLDS, WEAK)]
                listed = ", ".join(f"“{inert(claim)}”" for claim in claims)
                told = f"These claims hold for it: {listed}" if claims else "No claim holds for it"
                said.append(f"`{model}` {known}. {told}.")
        if not said:
            return Markup()
        said.append("What holds for them is no sign that an answer uses its reasoning.")
        return Markup(" ".join(said))

    def table(self, up: str = "") -> Markup:
        """The table as HTML; `up` leads from the page to the book's root, as in "../".

        The number behind a verdict stands in its title and is read out with it.
        """
        head = "".join(f'<th scope="col">{_text(column.model)}</th>' for column in self.columns)
        rows = []
        for index, claim in enumerate(CLAIMS):
            cells = "".join(_cell(column, index, up) for column in self.columns)
            name = f'<span title="{_text(claim.measure)}">{_text(claim.claim)}</span>'
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
        return Markup(
            '<div class="r2a-verdicts" role="region" tabindex="0" '
            'aria-label="The claims of the paper by models"><table>'
            f'<thead><tr><th scope="col">claim</th>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def rule(self) -> Markup:
        """What each claim is judged by, as a list in Markdown."""
        return Markup("\n".join(f"- *{inert(c.claim)}*: {inert(c.measure)}." for c in CLAIMS))


def judge(summaries: Mapping[str, Mapping[str, Any]]) -> Verdicts:
    """Verdicts on every claim, for each run of the book and each model of the paper.

    `summaries` are of `book.assemble`, the main run's first.
    """
    columns = []
    names = [_name(summary) for summary in summaries.values()]
    for name, (run_id, summary) in zip(names, summaries.items(), strict=True):
        pages = {stage: f"{summary['pages']}/{stage}.html" for stage in summary["stages"]}
        told = name if names.count(name) == 1 else f"{name} ({run_id})"
        columns.append(Column(told, [_own(claim, summary) for claim in CLAIMS], pages))
    first = next(iter(summaries.values()))
    main = {claim.stage: f"{MAIN_PAGES}/{claim.stage}.html" for claim in CLAIMS}
    pages = {stage: page for stage, page in main.items() if stage in first["stages"]}
    printed = [claim.paper(first["records"]) for claim in CLAIMS]
    for row in published()["stage1_math500"]["rows"]:
        found = [of_model.get(row["model"]) for of_model in printed]
        columns.append(Column(f"{row['model']} (paper)", found, pages))
    return Verdicts(columns)


def _own(claim: Claim, summary: Mapping[str, Any]) -> Evidence | None:
    """A run's evidence; an archive may be older than the number that a claim is judged by."""
    try:
        return claim.own(summary["records"])
    except KeyError:
        if summary["archive"]:
            return None
        raise


def _name(summary: Mapping[str, Any]) -> str:
    name = summary["records"].get("model", {}).get("name", summary["title"])
    return name.rpartition("/")[2].removeprefix("DeepSeek-")


def _cell(column: Column, index: int, up: str) -> str:
    evidence, claim = column.evidence[index], CLAIMS[index]
    said = verdict(evidence)
    told = evidence.told if evidence else "no number of this model"
    kind = said.replace(" ", "-")
    label = f'title="{_text(told)}" aria-label="{_text(f"{said}: {told}")}"'
    page = column.pages.get(claim.stage)
    if evidence and page:
        return f'<td class="{kind}"><a href="{up}{page}" {label}>{said}</a></td>'
    return f'<td class="{kind}"><span tabindex="0" {label}>{said}</span></td>'


def _text(text: str) -> str:
    """Any text within HTML within Markdown, where no sign may mean anything."""
    return "".join(f"&#{ord(c)};" if c in "{}|`*_$\\<>&\"'[]" else c for c in html.unescape(text))
