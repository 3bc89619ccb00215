"""A run archive is the run, is the same bytes each time, tells nothing of the machine, and is
refused where it is not what was packed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from r2a_utils.runs import archive
from r2a_utils.runs.archive import ArchiveError, opened, pack, read_archive, unpack
from r2a_utils.runs.folder import Run, RunFolderError
from r2a_utils.runs.lock import hold
from r2a_utils.runs.manifest import read_manifest, write_entry

ENTRY = {
    "status": "completed",
    "inputs": {"parameters": {"n": 3}, "source": "abc", "stages": {}},
    "chain": "1",
    "seconds": 1800.0,
    "commit": "0" * 40,
    "platform": "Linux x86_64, 2 cores",
    "model": {"name": "r2a-tiny", "weights_sha256": "f" * 64},
}


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of two stages with a file of every kind, and what does not belong into an archive."""
    run = Run.open(tmp_path / "runs/mine")
    run.write_record("count", {"n": 3})
    run.write_table("words", pd.DataFrame({"word": ["a", "b"], "n": [1, 2]}))
    run.write_array("grid", xr.DataArray(np.eye(3, dtype="float32"), dims=("layer", "position")))
    for name in ("notebooks", "figures", "traces", "unfinished"):
        (run.folder / name).mkdir()
    (run.folder / "notebooks/01_first.ipynb").write_text('{"cells": []}')
    (run.folder / "notebooks/02_second.failed.ipynb").write_text("{}")
    (run.folder / "figures/line.png").write_bytes(b"\x89PNG")
    (run.folder / "traces/with_reasoning.jsonl").write_text('{"text": "so"}\n')
    (run.folder / "unfinished/manifest.json").write_text("{}")
    (run.folder / "parameters.yml").write_text("n: 3\n")
    write_entry(run.folder, "01_first", ENTRY)
    write_entry(run.folder, "02_second", {"status": "failed", "inputs": {}})
    return run


@pytest.fixture
def file(run, tmp_path) -> Path:
    pack(run.folder, tmp_path / "mine.r2a")
    return tmp_path / "mine.r2a"


def rewritten(file: Path, change) -> None:
    """Write an archive anew, its files passed through `change(name, data)`; None leaves one out."""
    with zipfile.ZipFile(file) as old:
        files = {member.filename: old.read(member) for member in old.infolist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, data in files.items():
            data = change(name, data)
            if data is not None:
                new.writestr(name, data)


def test_what_is_unpacked_is_the_run(run, file, tmp_path):
    contents = unpack(file, tmp_path / "elsewhere/mine")
    there = Run.open(tmp_path / "elsewhere/mine")
    assert there.records() == run.records()
    assert there.read_table("words").equals(run.read_table("words"))
    assert there.read_array("grid").identical(run.read_array("grid"))
    assert read_manifest(there.folder) == read_manifest(run.folder)
    files = {path.relative_to(there.folder).as_posix() for path in there.folder.rglob("*.*")}
    assert files == set(contents["files"])
    assert files == {
        "arrays/grid.nc",
        "figures/line.png",
        "manifest.json",
        "notebooks/01_first.ipynb",
        "parameters.yml",
        "records/count.json",
        "tables/words.parquet",
    }


def test_what_an_uncompleted_stage_left_behind_is_not_packed(run, tmp_path):
    """A stage of the book that was killed has written a record and a grid, and an older page."""
    run.write_record("contrast_pairs", {"n": 3})
    run.write_record("segment_attention", {"n": 3})
    run.write_array("patch_grid", run.read_array("grid"))
    (run.folder / "notebooks/05_activation_patching.ipynb").write_text('{"cells": []}')
    write_entry(run.folder, "03_segment_attention", ENTRY)
    write_entry(run.folder, "05_activation_patching", {"status": "failed", "inputs": {}})
    files = pack(run.folder, tmp_path / "a.r2a")["files"]
    assert "records/segment_attention.json" in files
    assert not [name for name in files if "contrast" in name or "patch" in name]
    write_entry(run.folder, "05_activation_patching", ENTRY)
    files = pack(run.folder, tmp_path / "b.r2a")["files"]
    assert {"records/contrast_pairs.json", "arrays/patch_grid.nc"} < files.keys()


def test_it_says_what_made_it(file):
    contents, _ = read_archive(file)
    assert contents["commits"] == ["0" * 40]
    assert contents["models"] == [ENTRY["model"]]
    assert contents["machines"] == ["Linux x86_64, 2 cores"]
    assert contents["hours"] == 0.5
    assert contents["stages"] == ["01_first"]


def test_texts_go_with_it_where_they_are_asked_for(run, tmp_path):
    pack(run.folder, tmp_path / "whole.r2a", traces=True)
    unpack(tmp_path / "whole.r2a", tmp_path / "whole")
    assert Run.open(tmp_path / "whole").completions_path("with_reasoning").read_text()


def test_the_same_run_is_the_same_bytes(run, file, tmp_path):
    for path in run.folder.rglob("*.*"):
        path.touch()
    pack(run.folder, tmp_path / "again.r2a")
    assert (tmp_path / "again.r2a").read_bytes() == file.read_bytes()


def test_a_folder_of_a_parameter_stands_by_its_last_name_and_no_other_is_kept(run, tmp_path):
    model = "/data/somewhere/models/qwen"
    run.write_record("model", {"name": model})
    grid = run.read_array("grid").assign_attrs(n=1)
    run.write_array("grid", xr.Dataset({"effect": grid}, attrs={"model": model, "floor": 0.5}))
    (run.folder / "parameters.yml").write_text(f"model_name: {model}\n")
    (run.folder / "notebooks/01_first.ipynb").write_text(json.dumps({"cells": [f"at {model}/x"]}))
    entry = {**ENTRY, "inputs": {"parameters": {"model_name": model}}, "model": {"name": model}}
    write_entry(run.folder, "01_first", entry)
    pack(run.folder, tmp_path / "a.r2a")
    contents, files = read_archive(tmp_path / "a.r2a")
    assert not [name for name, data in files.items() if b"somewhere" in data]
    assert contents["models"] == [{"name": "…/qwen"}]
    unpack(tmp_path / "a.r2a", tmp_path / "a")
    there = Run.open(tmp_path / "a").read_array("grid")
    assert there.attrs == {"model": "…/qwen", "floor": 0.5}
    assert there.effect.equals(run.read_array("grid").effect)


def test_no_machine_is_named(run, file, tmp_path):
    """The same run made elsewhere is the same bytes; whose machine it was stays at home."""
    write_entry(run.folder, "01_first", {**ENTRY, "host": "babbage.example"})
    pack(run.folder, tmp_path / "b.r2a")
    assert (tmp_path / "b.r2a").read_bytes() == file.read_bytes()
    assert read_manifest(run.folder)["stages"]["01_first"]["host"] == "babbage.example"


@pytest.mark.parametrize(
    "words",
    [
        "see /home/ada/notes.txt",
        r"C:\\Users\\ada",
        "/Users/ada/x",
        str(archive.ROOT / "runs"),
        sys.prefix,
    ],
)
def test_a_run_that_names_another_folder_of_the_machine_is_not_packed(run, tmp_path, words):
    run.write_table("words", pd.DataFrame({"word": ["a", words]}))
    with pytest.raises(ArchiveError, match=r"tables/words.parquet names the folder"):
        pack(run.folder, tmp_path / "a.r2a")
    assert not (tmp_path / "a.r2a").exists()


def test_what_only_looks_like_a_folder_is_packed(run, tmp_path):
    run.write_record("words", {"a": "https://x.org/home/ada", "b": "1/2 and /3", "c": "</home/>"})
    pack(run.folder, tmp_path / "a.r2a")


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a1B2" * 8,
        "-----BEGIN RSA PRIVATE KEY-----",
        "http://ada:lovelace@host/v1",
        "of-the-environment",
    ],
)
def test_a_secret_is_not_packed(run, tmp_path, monkeypatch, secret):
    monkeypatch.setenv("R2A_API_KEY", "of-the-environment")
    page = {"cells": [{"outputs": [f"with {secret} in it"]}]}
    (run.folder / "notebooks/01_first.ipynb").write_text(json.dumps(page))
    with pytest.raises(ArchiveError, match="looks like a secret") as refusal:
        pack(run.folder, tmp_path / "a.r2a")
    assert secret not in str(refusal.value)
    assert not (tmp_path / "a.r2a").exists()


def test_numbers_of_a_view_are_no_secret(run, tmp_path):
    weights = '"/' + "AKIAAQAHAEUA" * 20 + '"'
    (run.folder / "notebooks/01_first.ipynb").write_text(json.dumps({"cells": [weights]}))
    pack(run.folder, tmp_path / "a.r2a")


def test_letters_of_a_picture_are_no_secret(run, tmp_path):
    cells = f'<img src="data:image/webp;base64,x+{"AKIA" * 9}/home/ada">'
    (run.folder / "notebooks/01_first.ipynb").write_text(json.dumps({"cells": [cells]}))
    pack(run.folder, tmp_path / "a.r2a")


def test_nothing_is_packed_of_a_run_that_is_not_there_not_done_or_in_use(run, tmp_path):
    with pytest.raises(ArchiveError, match="has no run: r2a run --run-id nowhere"):
        pack(tmp_path / "nowhere", tmp_path / "a.r2a")
    with hold(run.folder), pytest.raises(RunFolderError, match="is in use by process"):
        pack(run.folder, tmp_path / "a.r2a")
    write_entry(run.folder, "01_first", {**ENTRY, "status": "running"})
    with pytest.raises(ArchiveError, match=r"no stage of .* has completed"):
        pack(run.folder, tmp_path / "a.r2a")


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.95])
def test_a_changed_byte_of_any_file_is_refused(file, tmp_path, at):
    """The middle of its bytes; the zip's own labels, dates say, change nothing that is read."""
    members = zipfile.ZipFile(file).infolist()
    member = members[int(at * len(members))]
    content = bytearray(file.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    content[start + member.compress_size // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged|edited|has no place"):
        unpack(file, tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ArchiveError, match="no run archive or is damaged"):
        read_archive(file)


def test_a_number_that_was_edited_by_hand_is_refused(file):
    rewritten(file, lambda n, d: d.replace(b": 3", b": 4") if n == "records/count.json" else d)
    with pytest.raises(ArchiveError, match=r"not as it was packed \(records/count.json differs"):
        read_archive(file)


def test_a_file_that_was_taken_out_is_missed(file):
    rewritten(file, lambda name, data: None if name == "tables/words.parquet" else data)
    with pytest.raises(ArchiveError, match=r"tables/words\.parquet"):
        read_archive(file)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/etc/evil.json",
        "records/../../evil.json",
        "records\\..\\evil.json",
        "records/.hidden.json",
        "records/x.pkl",
        "notebooks/run.py",
        "arrays/a/b.nc",
        ".lock",
    ],
)
def test_what_has_no_place_in_a_run_folder_is_not_unpacked(file, tmp_path, name):
    with zipfile.ZipFile(file, "a") as opened_file:
        opened_file.writestr(zipfile.ZipInfo(name), "{}")
    with pytest.raises(ArchiveError, match="has no place in a run folder"):
        unpack(file, tmp_path / "deep/down/there")
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "deep").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(file):
    with zipfile.ZipFile(file, "a") as opened_file:
        opened_file.writestr("records/count.json", "{}")
    with pytest.raises(ArchiveError, match="holds a file twice"):
        read_archive(file)


def test_one_that_would_fill_the_disk_is_refused(file, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    with pytest.raises(ArchiveError, match="would unpack to more than"):
        read_archive(file)


def test_one_of_a_newer_format_says_so(file):
    rewritten(file, lambda n, d: d.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(ArchiveError, match="has format 2, and this R2A reads up to 1"):
        read_archive(file)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.r2a").write_text("hello")
    with pytest.raises(ArchiveError, match="no run archive or is damaged"):
        read_archive(tmp_path / "x.r2a")
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_archive(tmp_path / "nowhere.r2a")


def test_a_run_that_is_there_is_not_written_over(run, file):
    with pytest.raises(ArchiveError, match="is there already: give the run another name"):
        unpack(file, run.folder)
    assert run.read_record("count") == {"n": 3}


def test_it_is_unpacked_once_for_the_book_and_anew_when_it_changes(run, file, tmp_path):
    runs = opened(file, tmp_path / "place", "shown")
    (runs / "shown/mark").touch()
    assert opened(file, tmp_path / "place", "shown") == runs
    assert (runs / "shown/mark").exists()
    run.write_record("count", {"n": 4})
    pack(run.folder, file)
    again = opened(file, tmp_path / "place", "shown")
    assert Run.open(again / "shown").read_record("count") == {"n": 4}


def test_reading_one_runs_and_loads_nothing_of_the_analysis(file):
    code = (
        "import sys; from pathlib import Path; from r2a_utils.runs.archive import read_archive\n"
        f"read_archive(Path({str(file)!r}))\n"
        "print({'nbclient', 'papermill', 'torch'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
