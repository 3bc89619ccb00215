"""A stage that was killed goes on with the pieces that it had; nothing else takes them up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from r2a_utils.attention import mass
from r2a_utils.attention.mass import token_set_mass
from r2a_utils.causal import interventions, patching
from r2a_utils.runs import pieces
from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.folder import Run
from r2a_utils.runs.pieces import kept_in_pieces, pieces_of
from r2a_utils.runs.running import run_stages

STAGE = """\
# ---
# jupyter:
#   r2a:
#     writes: [records/total]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"
n = 3
breaks_at = -1

# %%
from pathlib import Path

import pandas as pd

from r2a_utils.runs import pieces
from r2a_utils.runs.folder import Run

pieces.LONG = 0.0
run = Run.open(run_dir)
log = Path(run_dir) / "log"


@pieces.kept_in_pieces
def square(i):
    with log.open("a") as lines:
        lines.write(f"{i}\\n")
    return pd.DataFrame({"x": [i * i]})


total = 0
for i in range(n):
    stop = log.parent / "stop"
    assert i != 2 or not stop.exists(), "killed"
    total += int(square(i).x.sum())
run.write_record("total", {"x": total})
"""


@pytest.fixture
def every_piece(monkeypatch):
    monkeypatch.setattr(pieces, "LONG", 0.0)


def test_a_second_try_takes_up_the_pieces_and_clears_them(tmp_path):
    notebooks, folder = tmp_path / "notebooks", tmp_path / "run"
    notebooks.mkdir()
    (notebooks / "05_square.py").write_text(STAGE)
    folder.mkdir()
    (folder / "stop").touch()
    with pytest.raises(StageFailed, match="killed"):
        run_stages(folder, notebooks=notebooks, progress=False)
    assert (folder / "log").read_text().split() == ["0", "1"]
    (folder / "stop").unlink()
    run_stages(folder, notebooks=notebooks, progress=False)
    assert (folder / "log").read_text().split() == ["0", "1", "2"]
    assert Run.open(folder).read_record("total") == {"x": 5}
    assert not (folder / "pieces").exists()


def test_other_inputs_begin_anew(tmp_path, every_piece):
    calls = []

    @kept_in_pieces
    def table(x):
        calls.append(x)
        return pd.DataFrame({"x": [x]})

    for inputs, times in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        with pieces_of(tmp_path, "05", inputs):
            table(1)
        assert len(calls) == times
    table(1)  # outside a stage
    assert len(calls) == 4
    assert len(list((tmp_path / "pieces" / "05").iterdir())) == 1


def test_what_is_quick_is_not_kept(tmp_path):
    with pieces_of(tmp_path, "05", "a"):
        kept_in_pieces(lambda: pd.DataFrame())()
    assert not (tmp_path / "pieces").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        ((1, 2), [1, 2]),
        (("ab", "c"), ("a", "bc")),
        ([[1], [2]], [[1, 2]]),
        (range(3), range(4)),
        (slice(1, 2), slice(1, 3)),
        ({"a": 1}, {"a": 2}),
        ({1}, {2}),
        (np.zeros(3), np.zeros((3, 1))),
        (np.zeros(3, "f4"), np.zeros(3, "f8")),
        (torch.tensor([1.0]), torch.tensor([1.0 + 1e-7])),
        (interventions.Knockout(kind="mean"), interventions.Knockout(kind="zeroed")),
    ],
)
def test_arguments_are_told_apart_by_their_content(one, other):
    digest = [b"".join(pieces._parts(value)) for value in (one, other)]
    assert digest[0] != digest[1]
    assert digest[0] == b"".join(pieces._parts(one))


def test_a_function_among_the_arguments_is_never_taken_for_another(tmp_path, every_piece):
    @kept_in_pieces
    def table(reduce):
        return pd.DataFrame({"x": [reduce([1, 2])]})

    with pieces_of(tmp_path, "05", "a"):
        assert table(sum).x[0] == 3 and table(max).x[0] == 2


def test_masses_come_back_as_they_were(tiny, world_traces, tmp_path, every_piece, monkeypatch):
    traces = world_traces[:3]
    with pieces_of(tmp_path, "03", "a"):
        first = token_set_mass(tiny, traces, [{"first": range(4)}] * 3, batch_size=2)
        monkeypatch.setattr(mass, "read_marks", None)
        again = token_set_mass(tiny, traces, [{"first": range(4)}] * 3, batch_size=2)
        xr.testing.assert_identical(again, first)
        with pytest.raises(TypeError):  # another question is asked of the model
            token_set_mass(tiny, traces, [{"first": range(3)}] * 3, batch_size=2)
    assert len(list((tmp_path / "pieces").rglob("*.npy"))) == 2


def test_a_grid_and_a_table_come_back_as_they_were(tiny, tmp_path, every_piece, monkeypatch):
    from r2a_utils.causal import ContrastPair, Knockout, measure, patch_metrics
    from r2a_utils.collecting.generation import collect_completions
    from r2a_utils.collecting.loading import load_problems
    from r2a_utils.texts.trace import Trace

    completion = collect_completions(tiny, load_problems("tiny", n=1, seed=4))[0]
    trace = Trace.from_ids(
        [*completion.prompt_ids, *completion.completion_ids, tiny.tokenizer.eos_token_id],
        tiny.tokenizer,
    )
    ids = list(trace.token_ids[:40])
    pair = ContrastPair(tuple(ids), (*ids[:20], 90, *ids[21:]), 70, 71, model=tiny.name)
    options = {"positions": [19, 20, 39], "min_gap": 0.0}
    with pieces_of(tmp_path, "05", "a"):
        grid = patch_metrics(tiny, pair, **options)
        table = measure(tiny, trace, [Knockout()])
        monkeypatch.setattr(patching, "sweep", None)
        monkeypatch.setattr(interventions, "replay", None)
        again = patch_metrics(tiny, pair, **options)
        xr.testing.assert_identical(again, grid)
        assert again.flip.dtype == bool
        same = measure(tiny, trace, [Knockout()])
        pd.testing.assert_frame_equal(same, table)
        assert same.attrs == table.attrs and same.attrs["engine"] == "fast"
        with pytest.raises(TypeError):  # another question is asked of the model
            measure(tiny, trace, [Knockout(kind="zeroed")])
