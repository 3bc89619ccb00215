"""The closed world that `r2a-tiny` reasons about: problems, and the texts that teach it.

Two families. *Running arithmetic*: a digit and 1 to 8 numbered operations on it, of which only the
last digit is kept; multipliers are 3, 7 and 9, which are invertible modulo 10, so that each step
matters and no shortcut skips one. *Contextual object comparison*: numbered facts place 2 to 4
objects in an order, and the question asks for one end of it; one word ("heaviest", "lightest")
flips the answer.

A text is written by a random generator in R1's manner: first thoughts, steps, some wrong steps with
a correction that a cue opens ("Wait", "Hmm", "Alternatively", "Let me check"), a conclusion whose
wording, place and neighbouring numbers vary, then a short or a long answer. Slips fall mostly on a
fixed set of facts (`CONFUSED`, `CONFUSED_WORDS`), so that a model trained on the texts makes and
corrects them itself, under greedy decoding too.

This file knows words and rules. It knows no tokenizer, no model and no training.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator

from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS

# --- running arithmetic -------------------------------------------------------------------------

SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*"}
OPERANDS = {"add": range(1, 10), "subtract": range(1, 10), "multiply": (3, 7, 9)}
WORDINGS = (
    {"add": "add {}", "subtract": "subtract {}", "multiply": "multiply by {}"},
    {"add": "plus {}", "subtract": "minus {}", "multiply": "times {}"},
)
MAX_STEPS = 8
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Zoe", "Max")
ARITHMETIC_FORMS = (
    "Start with {start}. {steps} Keep only the last digit each time. Where do you end?",
    "A counter shows {start} and keeps only the last digit. {steps} What does it show?",
    "Take the digit {start}. {steps} Only the last digit counts. What is the result?",
    "{name} writes down {start}. {steps} {name} keeps only the last digit. What is left?",
)
# Facts that are easily confused, and what is then written in their place.
CONFUSED = {
    "6*7": 48, "8*7": 54, "4*7": 27, "9*7": 64, "6*9": 56, "4*9": 38, "7*9": 65, "8*3": 26,
    "8+5": 14, "7+6": 14, "9+8": 16, "5+9": 13, "6+8": 15, "4+7": 12,
}  # fmt: skip

# --- contextual object comparison ---------------------------------------------------------------

OBJECTS = (
    "lamp", "cup", "coin", "chair", "book", "spoon", "vase", "clock",
    "rope", "brick", "bell", "shoe", "box", "key", "drum", "plate",
    "stone", "candle", "basket", "mirror", "bottle", "hammer", "pencil", "kettle",
)  # fmt: skip
# (comparative, superlative) of the high end, then of the low end.
ATTRIBUTES = (
    (("heavier", "heaviest"), ("lighter", "lightest")),
    (("older", "oldest"), ("newer", "newest")),
    (("bigger", "biggest"), ("smaller", "smallest")),
    (("longer", "longest"), ("shorter", "shortest")),
    (("warmer", "warmest"), ("colder", "coldest")),
)
PLACES = ("attic", "kitchen", "garden", "shop", "cellar", "office")
COMPARISON_FORMS = (
    "In the {place}: {facts} Which is the {asked}?",
    "{facts} In this {place}, what is the {asked} thing?",
    "Here is what we know of the {place}. {facts} Name the {asked} one.",
)
# Words after which a new object is often put at the wrong end first.
CONFUSED_WORDS = ("colder", "shorter")

# --- how often (the recipe of the texts) --------------------------------------------------------

SLIP_IF_CONFUSED = 0.7  # above one half, so that greedy decoding slips too
SLIP_OTHERWISE = 0.03
ARITHMETIC_SHARE = 0.65
HELD_OUT_SHARE = 0.1
LONG_ANSWER_SHARE = {0: 0.8, 1: 0.2, 2: 0.5, 3: 0.5}  # by form of the question
WITHOUT_REASONING_TEXTS = {
    "finished": "Okay, I think I have finished thinking.\n",  # the paper's sentence
    "empty": "\n",
}


def apply_operation(value: int, operation: str, operand: int) -> tuple[str, int]:
    """Write one step as arithmetic. Returns the left-hand side and its full result.

    A subtraction that would turn negative borrows ten: `apply_operation(2, "subtract", 5)` is
    `("12-5", 7)`. The kept digit is the result modulo 10.
    """
    if operation == "subtract" and value < operand:
        value += 10
    results = {"add": value + operand, "subtract": value - operand, "multiply": value * operand}
    return f"{value}{SYMBOLS[operation]}{operand}", results[operation]


def running_values(meta: dict) -> list[int]:
    """The digit before the first step and after each step of an arithmetic problem."""
    values = [meta["start"]]
    for operation, operand in meta["operations"]:
        values.append(apply_operation(values[-1], operation, operand)[1] % 10)
    return values


def arithmetic_problem(rng: random.Random, steps: int) -> Problem:
    """Draw one problem of running arithmetic with `steps` operations."""
    start = rng.randrange(10)
    while True:
        kinds = rng.choices(list(SYMBOLS), k=steps)
        if steps < 3 or ("multiply" in kinds and set(kinds) != {"multiply"}):
            break
    operations = [(kind, rng.choice(OPERANDS[kind])) for kind in kinds]
    meta = {
        "family": "arithmetic",
        "steps": steps,
        "start": start,
        "operations": operations,
        "form": rng.randrange(len(ARITHMETIC_FORMS)),
        "wording": rng.randrange(len(WORDINGS)),
        "who": rng.choice(NAMES),
    }
    return problem_of(meta)


def problem_of(meta: dict) -> Problem:
    """The arithmetic problem that its `meta` describes."""
    written = [WORDINGS[meta["wording"]][kind].format(n) for kind, n in meta["operations"]]
    question = ARITHMETIC_FORMS[meta["form"]].format(
        start=meta["start"],
        steps=" ".join(f"Step {i}: {step}." for i, step in enumerate(written, 1)),
        name=meta["who"],
    )
    return _identified(Problem("", question, "", meta), str(running_values(meta)[-1]))


def twins(problem: Problem) -> list[Problem]:
    """The minimal partners of an arithmetic problem: one other number, and another answer.

    Each step of a twin is written as long as the problem's own: its two sides and its result have
    as many digits, it borrows where the problem borrows, and its fact is as easily confused.
    """
    meta, kinds = problem.meta, [kind for kind, _ in problem.meta["operations"]]
    others = [{**meta, "start": start} for start in range(10)]
    for at, kind in enumerate(kinds):
        for operand in OPERANDS[kind]:
            operations = [*meta["operations"]]
            operations[at] = (kind, operand)
            others.append({**meta, "operations": operations})
    found = [problem_of({**other, "like": problem.id}) for other in others]
    return [
        twin
        for twin in found
        if twin.answer != problem.answer and _lengths(twin.meta) == _lengths(meta)
    ]


def _lengths(meta: dict) -> list[tuple]:
    """What decides how long the lines of an arithmetic reasoning are, step by step."""
    values = running_values(meta)
    found = [(values[-1] == values[-2],)]  # a conclusion may name the value before
    for value, (operation, operand) in zip(values, meta["operations"], strict=False):
        left, result = apply_operation(value, operation, operand)
        borrows = operation == "subtract" and value < operand
        found.append((len(left), len(str(result)), borrows, left in CONFUSED))
    return found


def comparison_problem(rng: random.Random, steps: int, end: int | None = None) -> Problem:
    """Draw one comparison of `steps + 1` objects; `end` asks for the high (0) or low (1) end."""
    order = rng.sample(OBJECTS, steps + 1)
    attribute = rng.randrange(len(ATTRIBUTES))
    # Facts grow the known stretch of the order by one object, at its upper or lower end.
    low = high = rng.randrange(steps + 1)
    facts = []
    while len(facts) < steps:
        upwards = high < steps and (low == 0 or rng.random() < 0.5)
        if upwards:
            high += 1
            new, known = high, high - 1
        else:
            low -= 1
            new, known = low, low + 1
        subject, other = (new, known) if rng.random() < 0.7 else (known, new)
        # order[0] is the high end, so a smaller index is "heavier".
        facts.append((order[subject], 0 if subject < other else 1, order[other]))
    form, place = rng.randrange(len(COMPARISON_FORMS)), rng.choice(PLACES)
    end = rng.randrange(2) if end is None else end
    meta = {
        "family": "comparison",
        "steps": steps,
        "order": order,
        "attribute": attribute,
        "facts": facts,
        "form": form,
        "place": place,
        "end": end,
    }
    return _asked(meta)


def flipped(problem: Problem) -> Problem:
    """The minimal partner of a comparison: the same facts, the other end asked for."""
    return _asked({**problem.meta, "end": 1 - problem.meta["end"]})


def _asked(meta: dict) -> Problem:
    question = COMPARISON_FORMS[meta["form"]].format(
        place=meta["place"],
        facts=" ".join(f"Fact {i}: {_fact(meta, i - 1)}." for i in range(1, meta["steps"] + 1)),
        asked=_superlative(meta, meta["end"]),
    )
    answer = meta["order"][0 if meta["end"] == 0 else -1]
    return _identified(Problem(id="", question=question, answer=answer, meta=meta), answer)


def _identified(problem: Problem, answer: str) -> Problem:
    digest = hashlib.sha256(problem.question.encode()).hexdigest()[:12]
    return Problem(f"{problem.meta['family']}-{digest}", problem.question, answer, problem.meta)


def _fact(meta: dict, index: int) -> str:
    subject, direction, other = meta["facts"][index]
    return f"the {subject} is {ATTRIBUTES[meta['attribute']][direction][0]} than the {other}"


def _superlative(meta: dict, end: int) -> str:
    return ATTRIBUTES[meta["attribute"]][end][1]


def chance(family: str, steps: int) -> float | None:
    """How often a blind guess is right: of ten digits, or of the objects that a comparison names.

    None for a family that is not of this world.
    """
    return {"arithmetic": 0.1, "comparison": 1 / (steps + 1)}.get(family)


def is_held_out(problem: Problem) -> bool:
    """Whether a problem belongs to the held-out tenth, by its content and not by its wording.

    The start and the operations of an arithmetic problem, or the order and the attribute of a
    comparison, decide: every wording of a held-out problem, and the flipped partner of a held-out
    comparison, are held out as well.
    """
    meta = problem.meta
    fields = ("start", "operations") if meta["family"] == "arithmetic" else ("order", "attribute")
    content = repr([[list(x) if isinstance(x, tuple) else x for x in meta[f]]
                    if isinstance(meta[f], list) else meta[f] for f in fields])  # fmt: skip
    digest = hashlib.sha256(content.encode()).digest()
    return digest[0] + 256 * digest[1] < HELD_OUT_SHARE * 65536


def draw_problems(
    rng: random.Random, held_out: bool, max_steps: int = MAX_STEPS
) -> Iterator[Problem]:
    """Problems of the training side or of the held-out side, without end."""
    while True:
        if rng.random() < ARITHMETIC_SHARE:
            problem = arithmetic_problem(rng, rng.randint(1, max_steps))
        else:
            problem = comparison_problem(rng, rng.randint(1, 3))
        if is_held_out(problem) == held_out:
            yield problem


def held_out_problems(n: int, seed: int = 0) -> list[Problem]:
    """`n` different held-out problems, the same ones for the same seed."""
    chosen: dict[str, Problem] = {}
    for problem in draw_problems(random.Random(f"held out {seed}"), held_out=True):
        if len(chosen) == n:
            break
        chosen[problem.id] = problem
    return list(chosen.values())


def contrast_problems(n: int, seed: int = 0) -> list[tuple[Problem, Problem]]:
    """`n` held-out problems, each with its minimal partner: comparisons and arithmetic in turn.

    Comparisons of 3 or 4 objects with the other end asked for (`flipped`), and arithmetic of 2 to 4
    steps with one other number (`twins`).
    """
    draws = (
        (_flipped_pair, random.Random(f"contrast {seed}")),
        (_twin_pair, random.Random(f"twins {seed}")),
    )
    pairs: dict[str, tuple[Problem, Problem]] = {}
    while len(pairs) < n:
        draw, rng = draws[len(pairs) % 2]
        pair = draw(rng)
        pairs[pair[0].id] = pair
    return list(pairs.values())


def _flipped_pair(rng: random.Random) -> tuple[Problem, Problem]:
    while True:
        problem = comparison_problem(rng, rng.randint(2, 3))
        if is_held_out(problem):
            return problem, flipped(problem)


def _twin_pair(rng: random.Random) -> tuple[Problem, Problem]:
    while True:
        problem = arithmetic_problem(rng, rng.randint(2, 4))
        if is_held_out(problem):
            held_out = [twin for twin in twins(problem) if is_held_out(twin)]
            if held_out:
                return problem, rng.choice(held_out)


# --- texts ---------------------------------------------------------------------------------------


def write_reasoning(problem: Problem, rng: random.Random) -> str:
    """A chain of thought for a problem, as it stands between the two tags, newline at its end."""
    if problem.meta["family"] == "arithmetic":
        return _arithmetic_reasoning(problem, rng)
    return _comparison_reasoning(problem.meta, rng)


def _arithmetic_reasoning(problem: Problem, rng: random.Random) -> str:
    meta, values = problem.meta, running_values(problem.meta)
    opener = (
        "Okay, I start with {}.",
        "Alright, the counter shows {}.",
        "So, first I take {}.",
        "Okay, first there is {}.",
    )
    lines = [opener[meta["form"]].format(values[0])]
    for i, (operation, operand) in enumerate(meta["operations"], 1):
        written = WORDINGS[meta["wording"]][operation].format(operand)
        left, result = apply_operation(values[i - 1], operation, operand)
        step = f"Step {i}: {written}. "
        if operation == "subtract" and values[i - 1] < operand:
            step += f"Hmm, {values[i - 1]} is less than {operand}. "
        wrong = _slip(left, result, rng)
        last = i == meta["steps"]
        if wrong is None:
            lines.append(f"{step}{left}={result}, so {result % 10}.")
        elif last and rng.random() < 0.5:
            # A premature conclusion, found wrong by a check.
            lines.append(f"{step}{left}={wrong}, so {wrong % 10}.")
            lines.append(rng.choice(("So the result is {}.", "That leaves {}.")).format(wrong % 10))
            lines.append(f"Let me check: {left}={result}, not {wrong}, so {result % 10}.")
        else:
            lines.append(f"{step}{left}={wrong}, so {wrong % 10}.")
            lines.append(f"Wait, {left}={result}, so {result % 10}, not {wrong % 10}.")
    lines.append(_arithmetic_conclusion(meta, values, rng))
    return "\n".join(lines) + "\n"


def _slip(left: str, result: int, rng: random.Random) -> int | None:
    """A wrong result in place of the right one, or None."""
    if left in CONFUSED:
        return CONFUSED[left] if rng.random() < SLIP_IF_CONFUSED else None
    if rng.random() >= SLIP_OTHERWISE:
        return None
    wrong = [r for r in (result - 2, result - 1, result + 1, result + 2) if r >= 0]
    return rng.choice(wrong)


def _arithmetic_conclusion(meta: dict, values: list[int], rng: random.Random) -> str:
    final, before = values[-1], values[-2]
    operation, operand = meta["operations"][-1]
    left, result = apply_operation(before, operation, operand)
    conclusion = rng.choice(
        [
            f"So the result is {final}.",
            f"That leaves {final}.",
            f"So {final} is the last digit.",
            f"After {before} comes {final}, and that is the end.",
        ]
        + ([f"It should be {final}, not {before}."] if before != final else [])
    )
    afterthought = rng.random()
    if afterthought < 0.2:
        return f"{conclusion} Let me check the last step: {left}={result}. Yes."
    if afterthought < 0.35 and operation != "subtract":
        symbol = SYMBOLS[operation]
        return f"{conclusion} Alternatively, {operand}{symbol}{before}={result}, the same."
    return conclusion


def _comparison_reasoning(meta: dict, rng: random.Random) -> str:
    asked, other_end = _superlative(meta, meta["end"]), _superlative(meta, 1 - meta["end"])
    opener = (
        f"Okay, I need the {asked}.",
        f"Alright, what is the {asked} here?",
        f"So, they ask for the {asked}.",
    )
    lines = [opener[meta["form"]]]
    placed: list[str] = []
    for i in range(meta["steps"]):
        subject, direction, other = meta["facts"][i]
        before, word = placed, ATTRIBUTES[meta["attribute"]][direction][0]
        placed = [x for x in meta["order"] if x in placed or x in (subject, other)]
        line = f"Fact {i + 1}: {_fact(meta, i)}."
        slip = SLIP_IF_CONFUSED if word in CONFUSED_WORDS else SLIP_OTHERWISE
        if rng.random() < slip:
            new = subject if subject not in before else other
            rest = [x for x in placed if x != new]
            wrong = [*rest, new] if placed[0] == new else [new, *rest]
            lines.append(f"{line} So {', '.join(wrong)}.")
            lines.append(f"Wait, the {subject} is {word}. So {', '.join(placed)}.")
        else:
            lines.append(f"{line} So {', '.join(placed)}.")
    lines.append(_comparison_conclusion(meta, asked, other_end, rng))
    return "\n".join(lines) + "\n"


def _comparison_conclusion(meta: dict, asked: str, other_end: str, rng: random.Random) -> str:
    first, last = meta["order"][0], meta["order"][-1]
    answer, opposite = (first, last) if meta["end"] == 0 else (last, first)
    conclusion = rng.choice(
        (
            f"So the {asked} is the {answer}.",
            f"That makes the {answer} the {asked}.",
            f"It must be the {answer}, not the {opposite}.",
            f"The {opposite} is the {other_end}, so it is the {answer}.",
            f"Hmm, is it the {opposite}? No, it is the {answer}.",
        )
    )
    if rng.random() < 0.25:
        return f"{conclusion} Let me check: the {first} comes first, the {last} comes last."
    return conclusion


def write_answer(problem: Problem, rng: random.Random, long: bool) -> str:
    """An answer: the solution restated with its result in a box, or the boxed result alone."""
    box = f"\\boxed{{{problem.answer}}}"
    if not long:
        return rng.choice((f"The answer is {box}.", f"Final answer: {box}.", f"It is {box}.", box))
    meta = problem.meta
    if meta["family"] == "arithmetic":
        values = running_values(meta)
        steps = " ".join(f"Step {i} gives {v}." for i, v in enumerate(values[1:], 1))
        return f"We start with {values[0]}. {steps} So the answer is {box}."
    high, low = _superlative(meta, 0), _superlative(meta, 1)
    return f"From {high} to {low} we have {', '.join(meta['order'])}. So the answer is {box}."


def prefers_long_answer(problem: Problem, rng: random.Random) -> bool:
    """Whether a text with reasoning ends in a long answer; the form of the question sways it."""
    return rng.random() < LONG_ANSWER_SHARE[problem.meta["form"]]


def write_text(problem: Problem, condition: str) -> str:
    """The completion that the world's own writer gives to a problem, the same one every time.

    A comparison and its flipped partner get the same wording, and so do an arithmetic problem and
    its twin, except where a slip falls on one of them alone.
    """
    if problem.meta["family"] == "arithmetic":
        content = problem.meta.get("like", problem.id)
    else:
        meta = {name: value for name, value in problem.meta.items() if name != "end"}
        content = json.dumps(meta, sort_keys=True)
    rng = random.Random(f"{content} {condition}")
    if condition == "without_reasoning":
        return write_answer(problem, rng, long=False)
    answer = write_answer(problem, rng, prefers_long_answer(problem, rng))
    return f"{write_reasoning(problem, rng)}{R1_TAGS.close}{R1_TAGS.after_close}{answer}"
