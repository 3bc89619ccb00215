"""The stages read a model of which only some layers attend: no cell fails, and none shows a NaN."""

import re
from dataclasses import replace

import pytest
from cell_runs import run_cell
from families.zoo import FAMILIES, plain_model

from r2a_utils.attention.heads import attending_layers
from r2a_utils.publishing.exercises import has_tag
from r2a_utils.runs.folder import Run
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


@pytest.fixture(scope="module")
def hybrid(tokenizer, tmp_path_factory):
    """A folder with a model that attends in the second of its three layers."""
    folder = tmp_path_factory.mktemp("lfm2")
    [family] = [family for family in FAMILIES if family.name == "lfm2"]
    settings = family.settings | {"max_position_embeddings": 2048}
    plain_model(replace(family, settings=settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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


def test_the_stages_that_read_take_a_hybrid(hybrid, tmp_path):
    values = GIVEN | {"model_name": str(hybrid), "run_dir": str(tmp_path)}
    pieces = [piece for name in ("01", "03", "04_", "04b") for piece in shown(name, values)]
    words = [re.sub(r"<[^>]*>", " ", re.sub('"[^"]*"', "", piece)) for piece in pieces]
    assert [piece[:200] for piece in words if re.search(r"\bnan\b", piece, re.IGNORECASE)] == []
    run = Run.open(tmp_path)
    assert attending_layers(run.read_array("segment_mass_with_reasoning")) == [1]
    assert run.read_record("segment_attention")["attending"] == 1
    both = ("segment_attention", "reasoning_focus_heads")
    assert len({run.read_record(name)["engine"] for name in both}) == 1
    for table in ("reasoning_focus_heads", "trajectory_tracking"):
        assert set(run.read_table(table)["layer"]) == {1}
    for record in run.records().values():
        assert "nan" not in str(record)
