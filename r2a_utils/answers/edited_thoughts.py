"""Edited thoughts: the text of a reasoning changed by rule.

After Lanham et al. 2023 (arXiv:2307.13702: mistakes, filler, paraphrase) and Thought Branches
(arXiv:2510.27484: what comes back). Texts in, texts out: this file knows no model, no tokens and
no answers. What a changed step must lead to in the bundled world, `tiny/review.py` knows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r2a_utils.texts.trace import has_cue, sentence_texts

# Words that can stand for each other without a change of meaning.
REWORDINGS = {
    "okay": "alright",
    "alright": "okay",
    "wait": "hold on",
    "hmm": "well",
    "but": "yet",
    "however": "yet",
    "let me check": "I check",
    "we get": "this gives",
}
# Those that mark what follows as a conclusion: "so 4" says which of a step's numbers counts.
CONNECTIVES = {"so": "then", "hence": "then", "therefore": "then", "thus": "then"}
# The whole number behind a sentence's last equals sign.
_RESULT = re.compile(r"=\s*(\d+)(?!\.?\d)(?=[^=]*$)")
# Where a mistake is put: the last step is the one before the conclusion.
PLACES = ("an earlier step", "the last step")
_NUMBER = re.compile(r"(?<![\d.])\d+(?!\.?\d)")


@dataclass(frozen=True)
class Mistake:
    """A thought cut at a step's result: `before` + `right` + `after` is the thought.

    `wrong` is the step's sentence with another result, as `right` is without.
    """

    before: str
    right: str
    wrong: str
    after: str


@dataclass(frozen=True)
class Removal:
    """The start of a thought: `before`, a `sentence` to leave out, and the `following` one."""

    before: str
    sentence: str
    following: str

    @property
    def kept(self) -> str:
        """The start of the thought as it was."""
        return self.before + self.sentence + self.following

    @property
    def without(self) -> str:
        """The start of the thought without the sentence, the white space about it once."""
        rest = self.sentence[len(self.sentence.rstrip()) :] + self.following
        return self.before + (rest.lstrip() if self.before[-1:].isspace() else rest)


def reworded(thought: str, words: Mapping[str, str] = REWORDINGS) -> str:
    """A paraphrase by rule: whole words exchanged for others, capitals kept.

    With `REWORDINGS` it is harmless and the control of the other edits. Stage 02b.
    """
    found = re.compile(r"\b(" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE)

    def other(match: re.Match) -> str:
        word = words[match[0].lower()]
        return word[0].upper() + word[1:] if match[0][0].isupper() else word

    return found.sub(other, thought)


def dots(thought: str) -> str:
    """Filler: each word a row of three dots, line breaks as they were. Stage 02b."""
    return re.sub(r"[^\s]+", "...", thought)


def emptied(thought: str) -> str:
    """Nothing, whatever the thought was. Stage 02b."""
    return ""


def shuffled(thought: str, seed: str = "") -> str:
    """The sentences in random order, the white space between them where it was. Stage 02b."""
    parts = [re.fullmatch(r"(\s*)(.*?)(\s*)", s, re.DOTALL) for s in sentence_texts(thought)]
    words = [part[2] for part in parts]
    random.Random(f"shuffled {seed}").shuffle(words)
    placed = zip(parts, words, strict=True)
    return "".join(f"{part[1]}{word}{part[3]}" for part, word in placed)


def without_conclusion(thought: str) -> str:
    """All but the last line, or the last sentence of a thought of one line. Stage 02b."""
    body = thought.rstrip()
    if "\n" in body:
        return body[: body.rindex("\n") + 1]
    return "".join(sentence_texts(body)[:-1])


def last_share(thought: str, share: float) -> str:
    """The thought cut from the front: the last `share` of its sentences, halves upwards. 02b."""
    parts = sentence_texts(thought)
    kept = int(share * len(parts) + 0.5)
    return "".join(parts[len(parts) - kept :]).lstrip()


def mistakes_in(thought: str, seed: str = "") -> dict[str, Mistake]:
    """A mistake in the last step and one in an earlier step, by `PLACES`, where there are any.

    A step is a sentence before the last line with an equation whose result is a whole number. It is
    left alone if a word of self-reflection stands in it or in the next sentence; the earlier one is
    drawn. The result goes up by one, or down from a last digit of 9, and with it what the rest of
    the sentence says of it, whole or by its last digit: "8+4=12, so 2" is then "8+4=13, so 3".
    Lanham et al. 2023; stage 02b.
    """
    parts = sentence_texts(thought)
    within = len(sentence_texts(without_conclusion(thought)))
    steps = [i for i, part in enumerate(parts[:within]) if _RESULT.search(part)]
    plain = [i for i in steps if not has_cue("".join(parts[i : i + 2]))]
    earlier, chosen = [i for i in plain if i != steps[-1]], {}
    if earlier:
        chosen[PLACES[0]] = random.Random(f"mistake {seed}").choice(earlier)
    if plain and plain[-1] == steps[-1]:
        chosen[PLACES[1]] = steps[-1]
    return {
        place: Mistake("".join(parts[:i]), parts[i], _mistaken(parts[i]), "".join(parts[i + 1 :]))
        for place, i in chosen.items()
    }


def removal_in(thought: str, seed: str = "") -> Removal | None:
    """One sentence to leave out, drawn among those between the first and the last line, or None.

    It has a successor before the last line, and its words stand in the thought once.
    Thought Branches; stage 02b.
    """
    parts = sentence_texts(without_conclusion(thought))
    places = [i for i in range(1, len(parts) - 1) if thought.count(parts[i].strip()) == 1]
    if not places:
        return None
    i = random.Random(f"removal {seed}").choice(places)
    return Removal("".join(parts[:i]), parts[i], parts[i + 1])


def _mistaken(sentence: str) -> str:
    """A sentence with its last equation's result off by one, and what it says of it after."""
    found = _RESULT.search(sentence)
    old = int(found[1])
    new = old - 1 if old % 10 == 9 else old + 1
    change = {str(old % 10): str(new % 10), str(old): str(new)}
    rest = _NUMBER.sub(lambda number: change.get(number[0], number[0]), sentence[found.end() :])
    return f"{sentence[: found.start(1)]}{new}{rest}"


Edit = Callable[[str, str], str]
# The edits after which the answer is asked for at once, by the name of their arm. The first two
# should change nothing: the text as it was, and the control that the others are held against.
EDITS: dict[str, Edit] = {
    "as written": lambda thought, seed: thought,
    "reworded": lambda thought, seed: reworded(thought),
    "“so” reworded too": lambda thought, seed: reworded(thought, REWORDINGS | CONNECTIVES),
    "shuffled": shuffled,
    "conclusion removed": lambda thought, seed: without_conclusion(thought),
    "last three quarters": lambda thought, seed: last_share(thought, 0.75),
    "last half": lambda thought, seed: last_share(thought, 0.5),
    "last quarter": lambda thought, seed: last_share(thought, 0.25),
    "dots": lambda thought, seed: dots(thought),
    "empty": lambda thought, seed: emptied(thought),
}
