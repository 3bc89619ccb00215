"""The trace of exercises 0.1 and 0.2 is the same in every vocabulary, tags that merge or not."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from vocabularies import merging, splitting

from r2a_utils.texts import SEGMENTS, encode, render_prompt, token_texts
from r2a_utils.texts.tags import KNOWN_TAGS, R1_TAGS

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "00_anatomy_of_a_trace.py"
CELLS = re.split(r"(?m)^# %%.*\n", PAGE.read_text(encoding="utf-8"))


def page_with(tokenizer, tags=R1_TAGS) -> dict:
    """The names of the page after its solutions and the two cells that try them were run."""
    names = {"model": SimpleNamespace(tokenizer=tokenizer, tags=tags), "encode": encode}
    names |= {"render_prompt": render_prompt, "token_texts": token_texts}
    names |= {"think": tags.open, "end_think": tags.close}
    solved = [c for c in CELLS if "raise NotImplementedError" not in c and "check_" not in c]
    for cell in solved:
        if "def segment_borders" in cell or "short_trace" in cell or "cue_positions(" in cell:
            exec(cell, names)
    return names


VOCABULARIES = {
    "merges": lambda: merging("<s>"),
    "merges, no BOS": merging,
    "splits its tag": splitting,
}


@pytest.mark.parametrize("tags", KNOWN_TAGS[:2], ids=lambda tags: tags.open)
@pytest.mark.parametrize("vocabulary", [*VOCABULARIES, "bundled"])
def test_the_six_segments_are_found_in_every_vocabulary(vocabulary, tags, tokenizer):
    tokenizer = VOCABULARIES[vocabulary]() if vocabulary in VOCABULARIES else tokenizer
    page = page_with(tokenizer, tags)
    borders = page["segment_borders"](page["short_trace"], *page["tag_ids"])
    texts = {name: tokenizer.decode(page["short_trace"][part]) for name, part in borders.items()}
    assert list(texts) == list(SEGMENTS)
    assert (texts["think"], texts["end_think"]) == (tags.open, tags.close)
    assert texts["prompt"] == "What is 3 + 4?"
    assert texts["reasoning"].startswith("\nLet me check") and texts["reasoning"].endswith("\n")
    assert texts["answer"] == "\n\nThe answer is \\boxed{7}."


def test_the_cues_of_the_trace_are_found_too():
    page = page_with(merging("<s>"))
    found = ["".join(page["short_tokens"][i : i + 4]) for i in page["found_at"]]
    assert [text[:3].strip() for text in found] == ["Let", "Wai", "but"]


def test_written_in_one_piece_the_tag_would_be_lost():
    tokenizer = merging("<s>")
    page = page_with(tokenizer)
    whole = [*page["bos"], *encode(tokenizer, "".join(page["pieces"]))]
    with pytest.raises(StopIteration):
        page["segment_borders"](whole, *page["tag_ids"])
