"""The stages take a model of which only some layers attend: no cell fails, and none shows a NaN."""

import re
from dataclasses import replace

import pytest
from cell_runs import run_cell
from families.zoo import FAMILIES, plain_model

from r2a_utils.attention.heads import attending_layers
from r2a_utils.publishing.exercises import has_tag
from r2a_utils.runs.folder import Run, StageEnd
from r2a_utils.runs.stage import load_stages

STAGES = load_stages()
GIVEN = {
    "source": "written",
    "n_problems": 10,
    "n_traces": 8,
    "n_untrained": 1,
    "n_shuffles": 20,
    "n_long": 5,
    "n_generic": 2,
    "k": 6,
}


# In stage 06, which asks most.
FEWEST = {
    "n_problems": 6,
    "n_traces": 2,
    "n_pairs": 1,
    "k": 2,
    "n_random_sets": 2,
    "n_flip_sets": 1,
    "n_draws": 1,
    "n_spans": 1,
    "n_resampled": 2,
    "resampled_tokens": 16,
}


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """`saved(name)`: a folder with a family's model of random weights."""

    def save(name):
        folder = tmp_path_factory.mktemp(name)
        [family] = [family for family in FAMILIES if family.name == name]
        settings = family.settings | {"max_position_embeddings": 2048}
        plain_model(replace(family, settings=settings)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def shown(name, values):
    """What the cells of a stage show, as a page has it: HTML, or else plain text."""
    [stage] = [stage for each, stage in STAGES.items() if each.startswith(name)]
    space, pieces = {}, []
    for i, cell in enumerate(stage.notebook.cells):
        if cell.cell_type == "code":
            value = run_cell(cell.source, space, f"{name}-{i}")
            draw = getattr(value, "_repr_html_", None) or (lambda value=value: repr(value))
            pieces.append(draw() or "")
            if has_tag(cell, "parameters"):
                space |= {key: value for key, value in values.items() if key in space}
    return pieces


def holes(pieces):
    """The pieces that show a NaN."""
    words = [re.sub(r"<[^>]*>", " ", re.sub('"[^"]*"', "", piece)) for piece in pieces]
    return [piece[:200] for piece in words if re.search(r"\bnan\b", piece, re.IGNORECASE)]


def test_the_stages_that_read_take_a_hybrid(saved, tmp_path):
    """It attends in the second of its three layers."""
    values = GIVEN | {"model_name": str(saved("lfm2")), "run_dir": str(tmp_path)}
    pieces = [piece for name in ("01", "03", "04_", "04b") for piece in shown(name, values)]
    assert holes(pieces) == []
    run = Run.open(tmp_path)
    assert attending_layers(run.read_array("segment_mass_with_reasoning")) == [1]
    assert run.read_record("segment_attention")["attending"] == 1
    both = ("segment_attention", "reasoning_focus_heads")
    assert len({run.read_record(name)["engine"] for name in both}) == 1
    for table in ("reasoning_focus_heads", "trajectory_tracking"):
        assert set(run.read_table(table)["layer"]) == {1}
    for record in run.records().values():
        assert "nan" not in str(record)


def test_heads_of_a_hybrid_are_cut_and_ablated_by_the_plain_engine(saved, tmp_path):
    """It attends in the second and fourth of its four layers; no pair of its own is kept."""
    values = GIVEN | FEWEST | {"model_name": str(saved("qwen3_next")), "run_dir": str(tmp_path)}
    for name in ("01", "03", "04_"):
        shown(name, values)
    with pytest.raises(StageEnd, match="needs 1 pair, has 0"):
        shown("05", values)
    assert holes(shown("06_", values)) == []
    record = Run.open(tmp_path).read_record("head_interventions")
    assert (record["n"], record["engine"]) == (2, "plain")
    assert record["strongest_layer"] in (1, 3) and record["all_layers"] != 0
    assert set(record["sets"]) == {"knockout", "zero", "mean", "resample"}
    for kept in Run.open(tmp_path).records().values():
        assert "nan" not in str(kept)
