"""A trace's segments tile it, whatever the tokenizer; what cannot be segmented is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import SEGMENTS, STEM, Trace, cues, encode, forced_ids, sentences

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
REASONING = "\nOkay, I start with 7.\nStep 1: add 5. 7+5=13, so 3.\nWait, 7+5=12, so 2, not 3.\n"
TEXT = f"{BOS}<｜User｜>Start with 7.<｜Assistant｜><think>{REASONING}</think>\n\nIt is 2.{EOS}"


@pytest.fixture(scope="module")
def byte_tokenizer():
    """A vocabulary of single bytes: each tag takes many tokens, and BOS is another one."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate(["<|bos|>", "<|eos|>", *sorted(alphabet)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|eos|>"
    )


@pytest.fixture(params=["tokenizer", "byte_tokenizer"])
def any_tokenizer(request):
    return request.getfixturevalue(request.param)


def test_segments_tile_the_trace_and_hold_the_right_text(any_tokenizer):
    trace = Trace.from_text(TEXT, any_tokenizer, problem_id="p")
    assert list(trace.segments) == list(SEGMENTS)
    borders = [trace.segments[s].start for s in SEGMENTS] + [trace.segments["answer"].stop]
    assert borders[0] == 0 and borders[-1] == len(trace) and borders == sorted(borders)
    assert all(trace.segments[s].stop == b for s, b in zip(SEGMENTS, borders[1:], strict=True))
    assert trace.segment_text("think") == "<think>"
    assert trace.reasoning_text == REASONING
    assert trace.segment_text("end_think") == "</think>"
    assert trace.answer_text == "\n\nIt is 2."
    assert trace.problem_id == "p"


def test_the_bos_and_eos_of_another_model_are_replaced_by_the_tokenizers_own(byte_tokenizer):
    trace = Trace.from_text(TEXT, byte_tokenizer)
    assert trace.token_ids[0] == byte_tokenizer.bos_token_id
    assert trace.token_ids.count(byte_tokenizer.bos_token_id) == 1
    assert byte_tokenizer.eos_token_id not in trace.token_ids
    assert "begin" not in trace.text and not trace.text.endswith(EOS)


def test_token_texts_join_to_the_text_and_split_no_character(byte_tokenizer):
    text = f"{BOS}q<think>π ≈ 3.14 – naïve 思考</think>\n\n√2"
    trace = Trace.from_text(text, byte_tokenizer)
    assert trace.text == "<|bos|>" + text.removeprefix(BOS)
    assert "\ufffd" not in "".join(trace.tokens)


def test_ids_and_text_give_the_same_trace(tokenizer):
    from_text = Trace.from_text(TEXT, tokenizer)
    assert Trace.from_ids([*from_text.token_ids, tokenizer.eos_token_id], tokenizer) == from_text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{BOS}q<think>thought", "cut off"),
        (f"{BOS}q<think>a</think>b</think>c", "has 2 </think>"),
        (f"{BOS}q thought</think>a", "has no <think>"),
        (f"{BOS}q<think>thought</think>\n\n{EOS}", "empty answer"),
        (f"{BOS}q<think></think>answer", "empty reasoning"),
        (f"{BOS}<think>thought</think>answer", "empty prompt"),
        (f"{BOS}{BOS}q<think>thought</think>answer", "two BOS"),
    ],
)
def test_a_malformed_text_is_refused_with_the_reason(tokenizer, text, reason):
    with pytest.raises(ValueError, match=reason):
        Trace.from_text(text, tokenizer)


def test_ids_without_bos_or_with_two_are_refused(tokenizer):
    ids = list(Trace.from_text(TEXT, tokenizer).token_ids)
    with pytest.raises(ValueError, match="does not start with BOS"):
        Trace.from_ids(ids[1:], tokenizer)
    with pytest.raises(ValueError, match="two BOS"):
        Trace.from_ids([ids[0], *ids], tokenizer)


@pytest.mark.parametrize("style", ["chat", "raw"])
@pytest.mark.parametrize("condition", ["with_reasoning", "without_reasoning"])
def test_a_prompt_has_one_bos_and_becomes_a_trace_with_what_follows(tokenizer, style, condition):
    ids = render_prompt(tokenizer, "Start with 7.", condition, style)
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    rest = "It is 7." if condition == "without_reasoning" else "So 7.\n</think>\n\nIt is 7."
    trace = Trace.from_ids(ids + encode(tokenizer, rest), tokenizer)
    assert trace.answer_text.strip() == "It is 7."
    assert "Start with 7." in trace.segment_text("prompt")


def test_the_prefilled_thoughts_are_the_papers_sentence_or_nothing(tokenizer):
    def reasoning(without):
        ids = render_prompt(tokenizer, "q", "without_reasoning", "raw", without)
        return Trace.from_ids(ids + encode(tokenizer, "2"), tokenizer).reasoning_text.strip()

    assert reasoning("finished") == "Okay, I think I have finished thinking."
    assert reasoning("empty") == ""


def test_the_raw_prompt_is_the_papers(tokenizer):
    text = tokenizer.decode(render_prompt(tokenizer, "What is 1+1?", prompt_style="raw"))
    assert text == (
        f"{BOS}What is 1+1? Please reason step by step, and put your final answer within "
        "\\boxed{}. <think>\n"
    )


@pytest.mark.parametrize(
    "options", [{"condition": "with"}, {"prompt_style": "plain"}, {"without": "nothing"}]
)
def test_an_unknown_choice_is_refused_with_the_known_ones(tokenizer, options):
    with pytest.raises(ValueError, match="choose"):
        render_prompt(tokenizer, "q", **options)


def test_sentences_tile_the_reasoning(any_tokenizer):
    trace = Trace.from_text(TEXT, any_tokenizer)
    found = sentences(trace)
    assert found[0].start == trace.segments["reasoning"].start
    assert found[-1].stop == trace.segments["reasoning"].stop
    assert all(a.stop == b.start for a, b in pairwise(found))
    texts = ["".join(trace.tokens[s]).strip() for s in found]
    assert texts[:2] == ["Okay, I start with 7.", "Step 1: add 5."]
    assert texts[-1] == "Wait, 7+5=12, so 2, not 3."


def test_decimals_and_abbreviations_do_not_end_a_sentence(byte_tokenizer):
    text = "q<think>It is 3.14, e.g. a decimal, i.e. no end. Next one? Yes!</think>a"
    trace = Trace.from_text(text, byte_tokenizer)
    assert ["".join(trace.tokens[s]).strip() for s in sentences(trace)] == [
        "It is 3.14, e.g. a decimal, i.e. no end.",
        "Next one?",
        "Yes!",
    ]


@pytest.mark.parametrize(
    "parts",
    [
        ["So 7。", "等一下！", "对吗？", "是的。"],
        ["1. Add 5.", "2. Take 3.", "(3. Stop here.)"],
        ["See Fig. 3 and Eqs. (2) of Dr. Who vs. Mr. Spock.", "Not a fig.", "So 3."],
        ["Take 1, 2, ... , n and 1 + 2 + ... + n.", "Hmm...", "It is 7."],
        ["So it is 12.", "Then 3.", "It is the side CF.", "So 7."],
        ["It is e.g. 3.14, i.e. no end.", "Next?"],
    ],
)
def test_where_a_sentence_ends(byte_tokenizer, parts):
    breaks = "\n" if parts[0].startswith("1.") else " "
    trace = Trace.from_text(f"q<think>{breaks.join(parts)}</think>a", byte_tokenizer)
    assert ["".join(trace.tokens[s]).strip() for s in sentences(trace)] == parts


def test_a_hyphen_may_stand_where_a_cue_has_a_blank(tokenizer):
    text = "q<think>Double-check. Let me double check. Doubled checks.</think>a"
    found = [cue.word for cue in cues(Trace.from_text(text, tokenizer))]
    assert found == ["double check", "let me double check"]


def test_cues_are_found_where_they_stand(any_tokenizer):
    text = "q<think>Hmm. But wait, the waiter: LET ME CHECK. Alternatively, no.</think>a"
    trace = Trace.from_text(text, any_tokenizer)
    assert [cue.word for cue in cues(trace)] == [
        "hmm",
        "but",
        "wait",
        "let me check",
        "alternatively",
    ]
    for cue in cues(trace):
        assert "".join(trace.tokens[cue.position :]).lower().lstrip().startswith(cue.word)


def test_cues_outside_the_reasoning_do_not_count(tokenizer):
    assert cues(Trace.from_text("Wait<think>so 2.</think>But 2.", tokenizer)) == []


CUT = [
    "So 3 and 4 are 7.\nWait, is it? Yes.\n",
    "One line\nand another\n\nand the last",
    "No line break. At all.",
]


@pytest.fixture(params=CUT)
def to_cut(request, tokenizer):
    text = f"{tokenizer.bos_token}3+4?<think>\n{request.param}</think>\n\n\\boxed{{7}}"
    return Trace.from_text(text, tokenizer)


def test_after_the_whole_reasoning_stands_the_traces_own_text(to_cut, tokenizer):
    ids = forced_ids(to_cut, tokenizer, len(sentences(to_cut)))
    own = list(to_cut.token_ids[: to_cut.segments["end_think"].stop])
    assert ids == own + encode(tokenizer, STEM)


def test_a_cut_keeps_whole_sentences_and_closes_them_once_on_a_line_of_its_own(to_cut, tokenizer):
    prompt = "".join(to_cut.tokens[: to_cut.segments["reasoning"].start])
    parts = ["".join(to_cut.tokens[part]) for part in sentences(to_cut)]
    for kept in range(len(parts)):
        text = tokenizer.decode(forced_ids(to_cut, tokenizer, kept, "|"))
        before, end, stem = text.rpartition("\n</think>")
        assert (end, stem) == ("\n</think>", "|")
        assert before + "\n" in (expected := prompt + "".join(parts[:kept]), expected + "\n")
