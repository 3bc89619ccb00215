"""The arms of edited thoughts on a pretrained model, through a server that it runs in."""

from __future__ import annotations

import pytest
import torch
from local_server import transformers_serve

from r2a_utils.answers.text_tests import (
    ANOTHERS,
    SWAPPED,
    Thought,
    ask_edited,
    edited,
    swapped,
    with_anothers,
)
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.endpoint import Endpoint
from r2a_utils.collecting.grade_school import grade_school_pairs
from r2a_utils.collecting.server import server_backend
from r2a_utils.collecting.solutions import write_solution
from r2a_utils.models.gguf import expanded, find_gguf

ASKED = 2
SAMPLING = Sampling(48)


@pytest.fixture(scope="module")
def thoughts(smollm2) -> list[Thought]:
    """Worked solutions of our own problems: the texts are given, the answers the model's."""
    problems = [problem for problem, _ in grade_school_pairs(ASKED)]
    close = smollm2.tags.close
    return [
        Thought(p, write_solution(p, "with_reasoning").partition(close)[0].strip() + "\n", p.answer)
        for p in problems
    ]


def test_a_pretrained_model_answers_every_arm_through_its_server_as_it_does_here(
    smollm2, thoughts, tmp_path
):
    asked = [e for e in edited(thoughts) if e.arm in ("as written", "empty")]
    asked += [*swapped(thoughts), *with_anothers(thoughts)]
    assert {SWAPPED, ANOTHERS} & {each.arm for each in asked}
    here = ask_edited(smollm2, asked, sampling=SAMPLING)
    folder = expanded(find_gguf("smollm2-135m"), torch.float32)
    with transformers_serve(folder, tmp_path / "log.txt") as url:
        to = Endpoint(url, str(folder), timeout_s=300, retries=1)
        backend = server_backend(to, smollm2.tokenizer)
        there = ask_edited(smollm2, asked, sampling=SAMPLING, backend=backend)
    assert there.equals(here)
    given = there.set_index(["arm", "problem_id"])["answer"]
    assert given["as written"].notna().all()
    assert (given["as written"] != given["empty"]).any()
