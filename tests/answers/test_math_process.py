"""The process that does algebra: its relations, its limit, its end."""

from __future__ import annotations

import pytest

from r2a_utils.answers import math_process
from r2a_utils.answers.math_process import related


def test_relations_by_hand():
    assert related("2(x+1)", "2x+2", "equal")
    assert not related("2^{-99}", "2^{-98}", "equal")
    assert related("x-y", "3y-3x", "multiple")
    assert not related("x-y", "x+y", "multiple") and not related("x", "x^{2}", "multiple")
    assert related("x-y", "2x-2y", "positive multiple")
    assert not related("x-y", "y-x", "positive multiple")
    assert related("x-y", "y-x", "negative multiple")
    assert related("1.414214", r"\sqrt{2}", "rounded")
    assert not related("1.414213", r"\sqrt{2}", "rounded")
    assert not related(r"\frac{1}{0}", r"\frac{1}{0}", "equal")


def test_what_cannot_be_read_to_its_end_is_related_to_nothing():
    for text in (r"4\sqrt(2)", r"\frac{1}{2}+", r"5\neq", "(5"):
        assert not related(text, text[:1], "equal")
        assert not related(text, text, "multiple")


def test_a_comparison_that_hangs_is_wrong_and_the_next_one_is_graded(monkeypatch):
    monkeypatch.setattr(math_process, "COMPARISON_LIMIT_S", 0.2)
    with pytest.warns(UserWarning, match=r"counted as wrong.*no result in 0.2 s of computing"):
        assert not related("9^{9^{9^{9}}}", "7^{7^{7^{7}}}", "equal")
    monkeypatch.undo()
    assert related(r"\frac{3}{9}", r"\frac{1}{3}", "equal")


def test_after_an_interrupt_the_next_reply_is_to_the_next_question(monkeypatch):
    assert related(r"\frac{2}{4}", r"\frac{1}{2}", "equal")
    process = math_process.PROCESS._process

    class Interrupted:
        def readline(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(process, "stdout", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        related(r"\frac{4}{6}", r"\frac{2}{3}", "equal")
    monkeypatch.undo()
    process.wait(timeout=10)
    assert not related(r"\frac{4}{7}", r"\frac{2}{3}", "equal")


def test_a_worker_that_dies_is_an_error_and_not_a_grade(monkeypatch, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(3)")
    worker = math_process.MathProcess()
    monkeypatch.setattr(math_process, "WORKER_SCRIPT", script)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="ended with code 3"):
            worker.ask("1", "2", "equal")
    worker.stop()
