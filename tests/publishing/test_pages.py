"""The pages as they are written: a thread through the stages, terms, references, captions."""

from __future__ import annotations

import re

import nbformat
import pytest

from r2a_utils.publishing.book_runs import BOOK, declared_runs
from r2a_utils.publishing.captions import is_caption, shows_figure
from r2a_utils.publishing.quoted_numbers import render
from r2a_utils.runs.stage import load_stages

STAGES = load_stages()
NAMES = list(STAGES)
MAIN_RUN = declared_runs()[0].id
PROSE = {
    name: "\n\n".join(c.source for c in stage.notebook.cells if c.cell_type == "markdown")
    for name, stage in STAGES.items()
}
WRITTEN = {path.name: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("**/*.md"))}


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_a_stage_begins_with_what_is_known_and_ends_with_what_is_missing(place):
    prose = PROSE[NAMES[place]]
    known = re.search(r"\*\*What we know so far\.\*\*(.*?)\n\n", prose, re.DOTALL).group(1)
    limits, missing = re.split(r"\n## What is missing\n", prose)
    assert "\n## What this does not show\n" in limits and "\n## " not in missing
    assert place == 0 or re.search(r"<\d\d_\w+>`", known)
    if place + 1 < len(NAMES):
        assert f"<{NAMES[place + 1]}>`" in re.sub(r"\s+", " ", missing).replace("` <", "`<")


def test_every_reference_is_cited():
    entries = re.findall(r"(?m)^@\w+\{(\w+),", (BOOK / "references.bib").read_text("utf-8"))
    pages = "\n".join([*PROSE.values(), *WRITTEN.values()])
    cited = {key for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", pages) for key in keys.split(",")}
    assert len(entries) == len(set(entries)) and set(entries) == {key.strip() for key in cited}


def test_every_term_of_the_glossary_is_linked_from_a_stage():
    glossary = WRITTEN["glossary.md"].partition("```{glossary}\n")[2].partition("\n```")[0]
    entries = re.findall(r"(?m)^((?:\S.*\n)+)  ", glossary)
    pages = re.sub(r"\s+", " ", "\n".join([*PROSE.values(), WRITTEN["intro.md"]]))
    links = re.findall(r"\{term\}`([^`]+)`", pages)
    linked = {(link.partition("<")[2].strip("> ") or link).lower() for link in links}
    assert entries
    assert [names for names in entries if not set(names.lower().splitlines()) & linked] == []


# A model of which nothing holds: its answers are worse after reasoning, its heads look elsewhere,
# no patch moves it, it boxes nothing and no pair is kept under the paper's probes.
NOTHING = {
    "model": {"name": "nobody"},
    "answer_quality": {
        "n": 100,
        "with_reasoning": 0.1,
        "without_reasoning": 0.5,
        "difference": -0.4,
        "ci_low": -0.5,
        "ci_high": -0.3,
    },
    "segment_attention": {
        "answer": {"reasoning": 0.2},
        "uniform_reasoning": 0.6,
        "lift_reasoning": 0.3,
        "heads_above_uniform": 0,
        "n_heads": 12,
    },
    "looking": {
        "n": 3,
        "own": {"lift": 0.3},
        "untrained": {"lift": 1.0, "largest_lift": 1.02},
        "above_untrained": 0,
    },
    "untrained_ranking": {"n": 0, "untrained": {}},
    "reasoning_focus_heads": {"top": "L0.H0", "top_mass": 0.4, "beyond_distance": 0, "k": 10},
    "activation_patching": {
        "n": 20,
        "protocol": "own",
        "families": [
            {
                "family": "arithmetic",
                "asked": 20,
                "n": 9,
                "of_asked": 0.0,
                "low": 0.0,
                "high": 0.16,
                "flips": 0.0,
                "first": 0.01,
            }
        ],
        "noise_floor": 1e-7,
        "crossing": None,
    },
    "crossed_answers": {
        "asked": 20,
        "follows": 0.05,
        "follows_low": 0.01,
        "follows_high": 0.24,
        "stays": 0.9,
        "verdict": "question",
    },
    "head_interventions": {
        "strongest_layer": 0,
        "strongest_change": 0.0,
        "smallest_p": 1.0,
        "smallest_possible_p": 0.2,
        "verdict": "cannot tell",
        "flip_n": 0,
        "flips": {},
    },
    "sentence_importance": {
        "n": 20,
        "needed_n": 0,
        "needed": None,
        "noise": 0.1,
        "dear_n": 0,
        "last_strongest": None,
    },
    "home_figures": {"answers": "", "heads": "", "patching": ""},
    "paper_effects": {"lowest": 0.29, "highest": 0.51},
}


def test_a_model_of_which_nothing_holds_is_told_so():
    run = {"id": "nobody", "records": NOTHING}
    synthesis = " ".join(render(PROSE["07_synthesis"], "07", run, {}).split())
    assert "**Fewer answers are right after reasoning.**" in synthesis
    assert "**No head looks at the reasoning more than one of an untrained model.**" in synthesis
    assert "**The answer does not follow the reasoning.**" in synthesis
    assert "depends on what the reasoning says is not shown by this run" in synthesis
    assert "depends causally" not in synthesis and "boxes no answer" in synthesis
    home = render(WRITTEN["intro.md"], "intro", run, {})
    cards = re.findall(r"(?m)^:::\{grid-item-card\} \d\. (.*)$", home)
    assert cards == [
        "Fewer answers are right after reasoning",
        "No head looks at it more than an untrained one",
        "The answer does not follow the reasoning",
    ]


def test_where_neither_is_followed_that_is_no_finding_about_the_reasoning():
    crossed = {**NOTHING["crossed_answers"], "stays": 0.1, "verdict": "neither"}
    run = {"id": "nobody", "records": {**NOTHING, "crossed_answers": crossed}}
    assert "**That the answer follows the" in render(PROSE["07_synthesis"], "07", run, {})
    assert "follows the reasoning is not shown" in render(WRITTEN["intro.md"], "intro", run, {})


def test_where_no_pair_was_patched_the_pages_say_whose_answer_it_is_all_the_same():
    records = {name: record for name, record in NOTHING.items() if name != "activation_patching"}
    run = {"id": "nobody", "records": records}
    home = render(WRITTEN["intro.md"], "intro", run, {})
    assert "The answer does not follow the reasoning" in home and "No pair could be patched" in home
    synthesis = render(PROSE["07_synthesis"], "07", run, {})
    assert "No pair could be patched" in synthesis


def test_what_real_models_do_stands_beside_the_hero_as_far_as_it_was_measured():
    def told(**records) -> str:
        records = {"model": {"name": "Real-1B"}} | records
        runs = {"qwen2.5-coder-0.5b": {"id": "x", "records": records}} if records else {}
        return render(WRITTEN["intro.md"], "intro", {"id": "nobody", "records": NOTHING}, runs)

    right = {"n": 50, "with_reasoning": 0.4, "without_reasoning": 0.1}
    home = told(answer_quality=right)
    assert "`Real-1B`: right in 40 % of 50 problems with its thought, in 10 % without." in home
    assert "a similar problem" not in home and "were exchanged" not in home
    swapped = {"outcomes": {"swapped": {"follows": 0.25, "before": 0.5, "n": 8}}}
    assert "25 % of 8 answers follow that thought and 50 % stay" in told(text_tests=swapped)
    crossed = {"asked": 20, "own": 0.4, "follows": 0.4, "stays": 0.0}
    assert "with their own thoughts 40 % get their own answers" in told(crossed_answers=crossed)
    crossed["own"] = 0.0  # nothing could have followed
    assert "follow the thought" not in told(crossed_answers=crossed)
    assert "nobody made for this" not in told()  # of which nothing of the kind is known


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("stage", NAMES)
def test_every_figure_has_a_caption(small_runs, stage):
    page = nbformat.read(small_runs / MAIN_RUN / "notebooks" / f"{stage}.ipynb", as_version=4)
    following = zip(page.cells, [*page.cells[1:], None], strict=True)
    bare = [c.source for c, n in following if shows_figure(c) and not (n and is_caption(n))]
    assert bare == []
