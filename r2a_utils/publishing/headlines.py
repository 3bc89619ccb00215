"""What a stage found, in one line: at the end of `r2a run`, and first on the stage's page."""

from __future__ import annotations

import html

from r2a_utils.publishing.quoted_numbers import ProseError, render

# A template for each stage, of numbers that its page quotes too. One without has an empty place.
HEADLINES = {
    "00_anatomy_of_a_trace": "one trace has {{ anatomy.tokens | counted('token') }}, "
    "{{ anatomy.reasoning_tokens }} of them reasoning: "
    "{{ anatomy.sentences | counted('sentence') }} with {{ anatomy.cues | counted('cue') }}",
    "01_collect_traces": "{% if collection.given %}texts that were given to the model: {% endif %}"
    "with reasoning, {{ collection.well_formed.with_reasoning | percent(1) }} "
    "of the traces of {{ collection.n | counted('problem') }} are finished and well formed",
    "02_answer_quality": "{{ answer_quality.with_reasoning | percent }} of the answers are right "
    "with reasoning, {{ answer_quality.without_reasoning | percent }} without",
    "02b_edited_thoughts": "{% if text_tests.outcomes.swapped is defined %}given the thought of a "
    "similar problem, {{ text_tests.outcomes.swapped.follows | percent }} of the answers follow it "
    "and {{ text_tests.outcomes.swapped.before | percent }} stay as they were{% else %}no thoughts "
    "could be swapped{% endif %}",
    "03_segment_attention": "the answer gives the reasoning "
    "{{ segment_attention.answer.reasoning | percent }} of its attention, "
    "{{ segment_attention.lift_reasoning | number }} times a uniform head's share",
    "04_reasoning_focus_heads": "the strongest head, {{ reasoning_focus_heads.top }}, gives the "
    "reasoning {{ reasoning_focus_heads.top_mass | percent }} of the answer's attention",
    "04b_what_the_heads_do": "{{ trajectory_tracking.best }} follows the reasoning most closely: "
    "mean rank correlation {{ trajectory_tracking.rho | number }}{% if untrained_following.n %} "
    "(heads of untrained models: up to {{ untrained_following.untrained.rho | number }}){% endif %}"
    "{% if trajectory_tracking.beyond is not none and trajectory_tracking.beyond_p <= 0.05 %}"
    "; beyond distance "
    "{{ trajectory_tracking.beyond_best | default(trajectory_tracking.best) }} does, at "
    "{{ trajectory_tracking.beyond | number }}{% if untrained_following.n and "
    "untrained_following.untrained.beyond is defined %} (theirs: up to "
    "{{ untrained_following.untrained.beyond | number }}){% endif %}{% endif %}",
    "04c_failed_traces": "{% if failed_traces.n %}the sentence read most holds the first error in "
    "{% if failed_traces.n < 5 %}{{ (failed_traces.rfh_rate * failed_traces.n) | number(0) }}"
    "{% else %}{{ failed_traces.rfh_rate | percent }}{% endif %} of {{ failed_traces.n }} failed "
    "traces{% else %}no failed trace to look into{% endif %}",
    "05_activation_patching": "{% if crossed_answers.own > 0.1 %}"
    "{{ crossed_answers.follows | percent }} of {{ crossed_answers.asked }} pairs follow a "
    "reasoning that is put behind the other question{% else %}too few of "
    "{{ crossed_answers.asked }} pairs give their own answers with their own reasonings to ask "
    "whether they would follow another{% endif %}; exchanging the state of one token flips "
    "{{ activation_patching.flips_of_asked | percent }}",
    "06_head_interventions": "cutting the answer off from the reasoning costs most in layer "
    "{{ head_interventions.strongest_layer }}; {% if head_interventions.verdict == 'different' %}"
    "one of four ways at least tells the Reasoning-Focus Heads from random heads of their layers"
    "{% if crossed_answers is defined and crossed_answers.verdict != 'reasoning' %}, for an answer "
    "that was not shown to follow the reasoning{% endif %}"
    "{% elif head_interventions.verdict == 'cannot tell' %}this design cannot tell the "
    "Reasoning-Focus Heads from random ones{% else %}none of four ways tells the Reasoning-Focus "
    "Heads from random heads of their layers{% endif %}",
    "06b_which_instruments": "of {{ scoreboard.n }} instruments, "
    "{{ scoreboard.by_verdict.tells | length or 'none' }} "
    "{% if scoreboard.by_verdict.tells | length < 2 %}tells{% else %}tell{% endif %} in every "
    "contrast whether an answer uses its reasoning, "
    "{{ scoreboard.by_verdict['tells in part'] | length }} in part{% if scoreboard.dose_problems %}"
    "; with the dose {{ scoreboard.by_growth.grows | length }} grow{% endif %}",
    "07_synthesis": "{% if crossed_answers.verdict == 'reasoning' %}in this model the answer "
    "depends on what the reasoning says: {% elif crossed_answers.verdict == 'open' %}in this model "
    "some answers depend on what the reasoning says: {% else %}this run does not show that the "
    "answer depends on the reasoning: {% endif %}{{ crossed_answers.follows | percent }} of "
    "{{ crossed_answers.asked }} pairs follow a reasoning that is put behind the other question",
}


def headline(stage: str, run_id: str, records: dict) -> str:
    """A stage's finding in a few words; where its records lack it, what they lack."""
    try:
        told = render(HEADLINES.get(stage, ""), stage, {"id": run_id, "records": records}, {})
        return html.unescape(told)  # a terminal is no page
    except ProseError as error:
        return f"({error})"


def finding(stage: str) -> str:
    """The box that opens a stage's page, as a template of its numbers; empty for one without."""
    told = HEADLINES.get(stage)
    return f":::{{admonition}} In one line\n:class: r2a-finding\n\n{told}\n:::" if told else ""
