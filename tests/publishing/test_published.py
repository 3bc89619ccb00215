"""The archives that the repository carries: small, of a commit, and true to their own arrays."""

import re

import nbformat
import numpy as np
import pytest

from r2a_utils.causal.two_places import FLIPPING, crossed_flips
from r2a_utils.publishing.book_runs import BOOK, declared_runs
from r2a_utils.publishing.quoted_numbers import ProseError, render
from r2a_utils.runs.archive import opened, read_archive
from r2a_utils.runs.folder import Run
from r2a_utils.runs.prose import in_todays_words
from r2a_utils.runs.stage import load_stages

FILES = sorted((BOOK / "published").glob("*.r2a"))
MOST_BYTES, MOST_BYTES_TOGETHER = 2_500_000, 12_000_000


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request):
    return request.param


@pytest.fixture
def run(file, tmp_path) -> Run:
    return Run.open(opened(file, tmp_path, file.stem) / file.stem)


def test_every_file_is_small_and_all_are_shown():
    sizes = [file.stat().st_size for file in FILES]
    assert max(sizes, default=0) <= MOST_BYTES and sum(sizes) <= MOST_BYTES_TOGETHER
    assert {run.archive for run in declared_runs() if run.archive} == set(FILES)


def test_it_says_which_commit_model_and_machine_made_it(file):
    contents, files = read_archive(file)
    assert contents["commits"] and contents["machines"] and contents["hours"] > 0
    assert all(re.fullmatch(r"[0-9a-f]{40}", commit) for commit in contents["commits"])
    assert {len(model["weights_sha256"]) for model in contents["models"]} == {64}
    assert not [name for name in files if name.startswith("traces/")]
    assert set(contents["stages"]) <= set(load_stages())


def test_all_that_its_pages_quote_is_in_its_records(file, run):
    contents, files = read_archive(file)
    stages = load_stages()
    quoted = {"id": file.stem, "records": run.records()}
    for name in contents["stages"]:
        executed = nbformat.reads(files[f"notebooks/{name}.ipynb"].decode(), as_version=4)
        page = in_todays_words(stages[name], executed)
        lacking = []
        for cell in page.cells:
            if cell.cell_type == "markdown":
                try:
                    render(cell.source, name, quoted, {})
                except ProseError as error:
                    lacking.append(str(error))
        assert lacking == []


def test_where_the_answer_looks_follows_from_the_masses(run):
    """What stage 03 says is a mean over heads and traces of the array that it kept."""
    mass = run.read_array("segment_mass_with_reasoning")
    said = run.read_record("segment_attention")["answer"]["reasoning"]
    ours = mass.sel(from_segment="answer", to_segment="reasoning").mean().item()
    assert ours == pytest.approx(said, abs=1e-6)


def test_the_strongest_head_follows_from_the_masses(run):
    if "reasoning_focus_heads" not in run.records():
        pytest.skip("this archive has no stage 04")
    mass = run.read_array("segment_mass_with_reasoning")
    heads = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
    layer, head = np.unravel_index(int(np.nanargmax(heads.values)), heads.shape)
    said = run.read_record("reasoning_focus_heads")
    assert said["top"] == f"L{layer}.H{head}"
    assert said["top_mass"] == pytest.approx(heads.values[layer, head], abs=1e-6)


def test_what_patching_does_follows_from_the_grids(run):
    if "activation_patching" not in run.records():
        pytest.skip("this archive has no stage 05, or no pair to patch")
    effects = run.read_array("patching_effects")
    said = run.read_record("activation_patching")
    assert said["n"] == effects.sizes["pair"]
    first = effects["effect"].isel(layer=0, place=0).mean().item()
    assert said["flipping_first"] == pytest.approx(first)
    flips = effects["flip"].transpose("pair", "layer", "place").values
    assert said["flip_rate"] == pytest.approx(crossed_flips(flips)[:, FLIPPING].mean())
