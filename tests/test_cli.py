"""The command line says what it did, and why it refused."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from r2a_utils import cli, doctor
from r2a_utils.models import hosted
from r2a_utils.models.registry import REGISTRY
from r2a_utils.publishing import book, book_runs
from r2a_utils.publishing.book_runs import PublishError
from r2a_utils.publishing.quoted_numbers import ProseError
from r2a_utils.runs import running
from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.folder import Run, RunFolderError
from r2a_utils.runs.manifest import write_entry
from r2a_utils.runs.parameters import ParameterError
from r2a_utils.runs.running import StageResult
from r2a_utils.teaching import lab


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list:
    """What `r2a run` asked of run_stages, which answers with two stages."""
    calls = []

    def record(folder, **keywords):
        for name in ("notebooks", "progress", "only_next"):  # as they always are
            keywords.pop(name)
        calls.append((folder.name, keywords.pop("stages"), keywords))
        return [
            StageResult("01_first", True, 12.34, Path("01_first.ipynb")),
            StageResult("02_second", False, 5.0, Path("02_second.ipynb")),
        ]

    monkeypatch.setattr(running, "run_stages", record)
    monkeypatch.setattr(running, "check_request", lambda folder, **request: None)
    monkeypatch.setattr(running, "RUNS", tmp_path)
    return calls


def test_all_runs_are_checked_before_the_first_one_starts(monkeypatch, capsys, tmp_path):
    declared = [
        book_runs.BookRun("first", "Good", {"n_problems": 8}),
        book_runs.BookRun("second", "Bad", {"n_problem": 8}),
    ]
    monkeypatch.setattr(book_runs, "declared_runs", lambda: declared)
    monkeypatch.setattr(running, "RUNS", tmp_path)
    assert cli.main(["run", "--all"]) == 2
    assert "did you mean n_problems" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_run_passes_on_what_was_asked_and_tells_what_was_done(asked, tmp_path, capsys):
    file = tmp_path / "small.yml"
    file.write_text("n_problems: 5")
    command = (
        "run --stages 01,second --run-id trial --set words=a=b --set k=3 --cell-timeout 60 --jobs 2"
    )
    assert cli.main([*command.split(), "--params", str(file)]) == 0
    assert asked == [
        (
            "trial",
            ["01", "second"],
            {
                "given": {"n_problems": 5},
                "settings": {"words": "a=b", "k": "3"},
                "cell_timeout": 60,
                "jobs": 2,
            },
        )
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run trial"
    assert lines[3].split() == ["01_first", "ran", "0.2"]
    assert lines[4].split() == ["02_second", "unchanged", "0.1"]


def test_a_run_of_the_book_takes_its_parameters_from_runs_yml(asked, monkeypatch):
    declared = [book_runs.BookRun("default", "Ours", {"n": 1}, ["01"])]
    monkeypatch.setattr(book_runs, "declared_runs", lambda: declared)
    cli.main(["run"])
    cli.main(["run", "--stages", "02"])
    cli.main(["run", "--run-id", "mine"])
    assert [(name, stages, keywords["given"]) for name, stages, keywords in asked] == [
        ("default", ["01"], {"n": 1}),
        ("default", ["02"], {"n": 1}),
        ("mine", None, None),
    ]


def test_all_runs_of_the_book_are_those_whose_parameters_are_declared(asked, monkeypatch):
    declared = [
        book_runs.BookRun("default", "Ours", {}),
        book_runs.BookRun("elsewhere", "Made on another machine"),
        book_runs.BookRun("other", "Another", {"n": 2}, ["03"]),
        book_runs.BookRun("kept", "In an archive", {"n": 3}, archive=Path("kept.r2a")),
    ]
    monkeypatch.setattr(book_runs, "declared_runs", lambda: declared)
    assert cli.main(["run", "--all"]) == 0
    assert [(name, stages, keywords["given"]) for name, stages, keywords in asked] == [
        ("default", None, {}),
        ("other", ["03"], {"n": 2}),
    ]
    with pytest.raises(SystemExit):
        cli.main(["run", "--all", "--run-id", "other"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "n_problems"], "--set takes name=value, not 'n_problems'"),
        (["--run-id", "../x"], "cannot be a run id"),
        (["--jobs", "2", "--on", "ray"], "--jobs is for stages on this machine"),
        (["--params", "nowhere.yml"], "cannot read the parameter file nowhere.yml"),
    ],
)
def test_what_cannot_be_is_refused_with_status_2(asked, capsys, arguments, told):
    assert cli.main(["run", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert asked == []


def test_a_run_is_packed_and_unpacked_under_another_name(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(running, "RUNS", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pack", "mine"]) == 2
    assert "mine has no run: r2a run --run-id mine" in capsys.readouterr().err
    run = Run.open(tmp_path / "runs/mine")
    run.write_record("count", {"n": 3})
    write_entry(run.folder, "01_first", {"status": "completed", "seconds": 36.0})
    assert cli.main(["pack", "mine"]) == 0
    assert capsys.readouterr().out.startswith("mine.r2a: 2 files, 0.00 MB")
    assert cli.main(["unpack", "mine.r2a"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["unpack", "mine.r2a", "--run-id", "../theirs"]) == 2
    assert cli.main(["unpack", "mine.r2a", "--run-id", "theirs"]) == 0
    assert Run.open(tmp_path / "runs/theirs").read_record("count") == {"n": 3}


@pytest.mark.parametrize(("error", "status"), [(ParameterError, 2), (StageFailed, 1)])
def test_a_run_that_fails_says_why(monkeypatch, capsys, error, status):
    def fail(*arguments, **keywords):
        raise error("because")

    monkeypatch.setattr(running, "run_stages", fail)
    assert cli.main(["run"]) == status
    assert capsys.readouterr().err == "r2a: because\n"


@pytest.mark.parametrize("command", ["run", "book"])
def test_a_stopped_command_says_that_it_goes_on(monkeypatch, capsys, command):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_stages", stop)
    monkeypatch.setattr(book, "publish", stop)
    assert cli.main([command]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_all_goes_on_past_a_run_that_fails_and_says_so_at_the_end(monkeypatch, capsys, tmp_path):
    declared = [book_runs.BookRun(run_id, "Title", {}) for run_id in ("first", "second", "third")]
    monkeypatch.setattr(book_runs, "declared_runs", lambda: declared)
    monkeypatch.setattr(running, "RUNS", tmp_path)

    def run(folder, **keywords):
        if folder.name == "second":
            raise StageFailed("no memory")
        return [StageResult("01_first", True, 1.0, Path("01_first.ipynb"))]

    monkeypatch.setattr(running, "run_stages", run)
    assert cli.main(["run", "--all"]) == 1
    told = capsys.readouterr()
    assert [line for line in told.out.splitlines() if line.startswith("run ")] == [
        "run first",
        "run third",
    ]
    assert told.err == "r2a: run second failed: no memory\n"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (RunFolderError("runs/x is in use"), 2, "runs/x is in use"),
        (OSError(28, "No space left on device", "runs/x"), 1, "runs/x; make room"),
        (
            PermissionError(13, "Permission denied", "runs/x"),
            1,
            "runs/x; ask for the right",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(monkeypatch, capsys, error, status, told):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(running, "run_stages", fail)
    assert cli.main(["run"]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and told in lines[0]


@pytest.mark.parametrize("option", ["--cell-timeout", "--jobs"])
@pytest.mark.parametrize("limit", ["0", "-1", "1e3", "ten", "9" * 12])
def test_a_time_limit_and_a_number_of_jobs_are_whole_numbers(asked, capsys, option, limit):
    with pytest.raises(SystemExit):
        cli.main(["run", option, limit])
    assert "is no whole number" in capsys.readouterr().err
    assert asked == []


def test_book_tells_where_it_is(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(book, "publish", lambda: (tmp_path / "index.html", True))
    assert cli.main(["book"]) == 0
    assert capsys.readouterr().out == f"built: file://{tmp_path}/index.html\n"
    monkeypatch.setattr(book, "publish", lambda: (tmp_path / "index.html", False))
    cli.main(["book"])
    assert capsys.readouterr().out.startswith("unchanged: ")


@pytest.mark.parametrize("error", [PublishError, ProseError])
def test_a_book_that_fails_says_why(monkeypatch, capsys, error):
    def fail():
        raise error("a run is missing")

    monkeypatch.setattr(book, "publish", fail)
    assert cli.main(["book"]) == 1
    assert capsys.readouterr().err == "r2a: a run is missing\n"


def test_models_lists_every_registered_model_with_its_size(capsys):
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in REGISTRY:
        assert sum(line.startswith(name + " ") for line in lines) == 1
    qwen = next(line for line in lines if "Qwen-7B" in line).split()
    assert qwen[1:5] == ["7.62B", "28", "28", "15.23"]
    unknown = next(line for line in lines if line.startswith("Qwen/Qwen3.5-0.8B "))
    assert unknown.split()[1:3] == ["not", "estimated"]


def test_the_models_stand_in_the_order_in_which_they_are_asked_for():
    families = (
        *("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B", "Qwen3-4B-Thinking-2507"),
        *("DeepSeek-R1-0528-Qwen3-8B", "DeepScaleR-1.5B-Preview", "QwQ-32B", "SmolLM3-3B"),
        *("OpenThinker3-7B", "OpenReasoning-Nemotron-7B", "Phi-4-mini-reasoning"),
        *("Olmo-3-7B-Think", "Ministral-3-3B-Reasoning-2512", "Ministral-3-8B-Reasoning-2512"),
        *("Magistral-Small-2507", "gpt-oss-20b", "Qwen3.5-0.8B", "Falcon-H1R-7B"),
    )
    hub = [name.partition("/")[2] for name in REGISTRY if "/" in name]
    assert tuple(hub[: len(families)]) == families
    assert all(name.startswith("DeepSeek-R1-Distill-") for name in hub[len(families) :])


def test_doctor_is_content_with_the_machine_that_runs_the_tests(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out
    assert "DeepSeek-R1-Distill-Llama-70B" in out


def test_doctor_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "examine", lambda: [doctor.Check("torch", False, "missing", "make setup")]
    )
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[1].strip() == "make setup"


def test_a_model_fits_where_there_is_memory_for_it(monkeypatch):
    monkeypatch.setattr(doctor, "_free_gpu_memory", lambda: [("a GPU", 24 * 10**9)])
    found = [check.found for check in doctor.examine() if check.name == "model"]
    fits = {text.partition(":")[0]: "fits on the GPU" in text for text in found}
    assert fits["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
    assert not fits["deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"]
    assert "tiiuae/Falcon-H1R-7B: what it needs is not estimated" in found


def test_the_doctor_names_the_first_way_that_is_open(monkeypatch):
    monkeypatch.setattr(doctor, "_free_gpu_memory", lambda: [("a GPU", 80 * 10**9)] * 4)
    monkeypatch.setattr(doctor, "_memory_speed", lambda: 10e9)
    found = {c.found.partition(":")[0]: c.found for c in doctor.examine() if c.name == "model"}
    assert "fits on the GPU" in found["deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"]
    assert "these 4 GPUs together" in found["deepseek-ai/DeepSeek-R1-Distill-Llama-70B"]
    monkeypatch.setattr(doctor, "_free_gpu_memory", list)
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=9e9))
    found = {c.found.partition(":")[0]: c.found for c in doctor.examine() if c.name == "model"}
    # 1,000 times the 7.1 GB of its weights at 10 GB a second
    assert "at about 12 min for 1,000" in found["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
    assert doctor.NOWHERE in found["deepseek-ai/DeepSeek-R1-Distill-Llama-70B"]


def test_the_doctor_says_what_stands_between_here_and_ndif(monkeypatch, capsys):
    name = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"
    monkeypatch.setattr(doctor, "_free_gpu_memory", list)
    monkeypatch.setattr(hosted, "CONFIG", SimpleNamespace(API=SimpleNamespace(HOST="h", APIKEY="")))
    assert cli.main(["doctor"]) == 0
    assert "put it into the environment as NDIF_API_KEY" in capsys.readouterr().out
    monkeypatch.setattr(hosted, "ask_host", lambda seconds: ("", frozenset({name})))
    found = {c.found.partition(":")[0]: c.found for c in doctor.examine() if c.name == "model"}
    assert doctor.ON_NDIF in found[name]
    assert doctor.ON_NDIF not in found["deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"]


def test_lab_passes_its_options_on_and_other_commands_refuse_them(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(lab, "open_lab", lambda arguments: asked.append(arguments) or 3)
    assert cli.main(["lab", "--no-browser", "--port", "8889"]) == 3
    assert asked == [["--no-browser", "--port", "8889"]]
    with pytest.raises(SystemExit):
        cli.main(["book", "--no-browser"])
    assert "unrecognized arguments: --no-browser" in capsys.readouterr().err


def test_the_command_is_installed_and_quick_to_help():
    command = Path(sys.executable).with_name("r2a")
    told = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("run", "book", "models", "doctor", "lab"):
        assert f"\n    {name} " in told
    code = "import sys; from r2a_utils import cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", ["run", "book", "workshop", "lab"])
def test_a_participants_folder_is_told_where_these_commands_work(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cli, "SOURCES", tmp_path / "notebooks")
    assert cli.main([command]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"r2a: {tmp_path} has no notebooks/") and told.count("\n") == 1
