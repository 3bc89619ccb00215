"""The command `r2a`: it reads what was asked for, calls the module that knows, and prints.

No logic lives here. A refused or failed command says why on standard error and exits with 2 or 1.
"""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2a_utils import __version__
from r2a_utils.folders import found, source_folder

SOURCES = source_folder() / "notebooks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 refused before it began."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if others and options.command is not _lab:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    options.others = others
    if options.command in (_run, _book, _lab, _workshop) and not SOURCES.is_dir():
        return _complain(
            f"{SOURCES.parent} has no notebooks/, from which stages, book and copies are made. In "
            "a workshop's folder open the notebooks themselves (jupyter lab); for the rest take a "
            "clone of the repository",
            2,
        )
    try:
        return _obeyed(options)
    except KeyboardInterrupt:  # while libraries are imported, too
        return _complain("stopped; the same command goes on where it was", 130)


def _obeyed(options: argparse.Namespace) -> int:
    from r2a_utils.runs.folder import RunFolderError

    try:
        return options.command(options)
    except RunFolderError as error:
        return _complain(error, 2)
    except OSError as error:  # a full disk, a folder that may not be written
        what_to_do = {
            errno.ENOSPC: "make room, then the same command goes on",
            errno.EDQUOT: "make room, then the same command goes on",
            errno.EROFS: "work in a copy of the repository that may be written",
            errno.EACCES: "ask for the right to it, or work in a copy of your own",
        }.get(error.errno)
        if what_to_do is None:
            raise
        return _complain(f"{error.strerror}: {error.filename or 'disk'}; {what_to_do}", 1)


def _run(options: argparse.Namespace) -> int:
    from r2a_utils.publishing.book_runs import PublishError, declared_runs
    from r2a_utils.runs.parameters import ParameterError
    from r2a_utils.runs.running import check_request
    from r2a_utils.runs.sweep import ClusterError, plan, planned

    try:
        shown = declared_runs()
        requests = _requests(options, shown)
        for request in requests:  # before the first one takes its hours
            check_request(request.run, **request.arguments())
        if options.on and options.jobs > 1:
            raise ParameterError("--jobs is for stages on this machine: leave it or --on out")
        if options.dry_run or options.on:
            plans = [plan(request, options.gpu_memory * 1e9) for request in requests]
        if options.dry_run:
            print(planned(plans))
            return 0
        outcomes = _elsewhere(options, plans) if options.on else _here(requests, options.jobs)

        from r2a_utils.publishing.summary import summary

        failed = 0
        for request in requests:
            outcome = outcomes[request.run_id]
            if isinstance(outcome, BaseException):
                failed += 1
                who = f"run {request.run_id} failed: " if len(requests) > 1 else ""
                _complain(f"{who}{outcome}", 1)
            else:
                print(f"run {request.run_id}\n\n{summary(request.run, outcome, shown)}\n")
    except (ParameterError, PublishError, ClusterError) as error:
        return _complain(error, 2)
    return 1 if failed else 0


def _requests(options: argparse.Namespace, shown: Sequence[Any]) -> list[Any]:
    """The runs that are asked for: one, or those of the book, or those of another file."""
    from r2a_utils.publishing.book_runs import declared_runs
    from r2a_utils.runs.running import read_parameters
    from r2a_utils.runs.sweep import Request

    settings = dict(_name_and_value(text) for text in options.set)
    listed = declared_runs(file=found(options.sweep)) if options.sweep else shown
    declared = {run.id: run for run in listed}
    # A run without declared parameters was made elsewhere, and so was what an archive holds.
    every = [run.id for run in listed if run.parameters is not None and run.archive is None]
    requests = []
    for run_id in every if options.all or options.sweep else [options.run_id]:
        given, stages = None, options.stages
        if run_id in declared:
            given = declared[run_id].parameters
            stages = stages or declared[run_id].stages
        if options.params is not None:
            given = read_parameters(found(options.params))
        requests.append(Request(run_id, stages, given, settings, options.cell_timeout))
    return requests


def _here(requests: Sequence[Any], jobs: int) -> dict[str, Any]:
    """One run after the other, in this process."""
    from r2a_utils.runs.execution import StageFailed

    outcomes: dict[str, Any] = {}
    for request in requests:
        try:
            outcomes[request.run_id] = request.go_on(progress=True, jobs=jobs)
        except StageFailed as error:
            outcomes[request.run_id] = error
    return outcomes


def _elsewhere(options: argparse.Namespace, plans: Sequence[Any]) -> dict[str, Any]:
    """Side by side, on Ray or on SLURM."""
    if options.on == "slurm":
        from r2a_utils.runs.on_slurm import run_on_slurm

        return run_on_slurm(plans, dict(_name_and_value(text, "--slurm") for text in options.slurm))
    from r2a_utils.runs.on_ray import run_on_ray

    return run_on_ray(plans, None if options.on == "ray" else options.on)


def _book(options: argparse.Namespace) -> int:
    from r2a_utils.publishing.book import publish
    from r2a_utils.publishing.book_runs import PublishError
    from r2a_utils.publishing.quoted_numbers import ProseError

    try:
        first_page, built = publish()
    except (PublishError, ProseError) as error:
        return _complain(error, 1)
    print(f"{'built' if built else 'unchanged'}: {first_page.as_uri()}")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from r2a_utils.runs.archive import SUFFIX, pack
    from r2a_utils.runs.parameters import ParameterError
    from r2a_utils.runs.running import run_folder

    try:
        file = options.file or Path(options.run_id + SUFFIX)
        contents = pack(run_folder(options.run_id), file, traces=options.traces)
    except ParameterError as error:
        return _complain(error, 2)
    size = file.stat().st_size / 1e6
    print(f"{file}: {len(contents['files'])} files, {size:.2f} MB")
    return 0


def _unpack(options: argparse.Namespace) -> int:
    from r2a_utils.runs.archive import read_archive, unpack
    from r2a_utils.runs.parameters import ParameterError
    from r2a_utils.runs.running import run_folder

    try:
        folder = run_folder(options.run_id or str(read_archive(options.file)[0].get("run_id")))
    except ParameterError as error:
        return _complain(error, 2)
    unpack(options.file, folder)
    print(f"{folder}; `archive:` in book/runs.yml shows the file itself in the book")
    return 0


def _export(options: argparse.Namespace) -> int:
    from r2a_utils.publishing.export import export
    from r2a_utils.runs.parameters import ParameterError
    from r2a_utils.runs.running import run_folder

    to = options.to or Path("exports") / options.run_id
    try:
        exported = export(run_folder(options.run_id), to, options.format)
    except ParameterError as error:
        return _complain(error, 2)
    print(f"{to}: {len(exported.files)} files")
    if exported.without_figures and options.format != ["csv"]:
        return _complain(
            "figures are kept while a stage runs, and this run, made before that or unpacked from "
            f"an archive, has not all of those of {', '.join(exported.without_figures)}; `r2a run` "
            f"under another --run-id makes them",
            1,
        )
    return 0


def _models(options: argparse.Namespace) -> int:
    from r2a_utils.models.registry import REGISTRY, parameter_count, shape_of

    print(f"{'name':42} {'parameters':>10} {'layers':>6} {'heads':>5} {'GB bf16':>8}  about")
    group = None
    for name, known in REGISTRY.items():
        owner = name.rpartition("/")[0] if known.hub_id else "bundled"
        if owner != group:
            group = owner
            print()
        shape = shape_of(name)
        if shape is None:
            print(f"{name:42} {'not estimated':>34}  {known.about}")
            continue
        count = parameter_count(shape)
        layers, heads = shape["num_hidden_layers"], shape["num_attention_heads"]
        size = f"{count / 1e9:9.2f}B" if count > 1e8 else f"{count / 1e6:9.2f}M"
        print(f"{name:42} {size} {layers:6} {heads:5} {2 * count / 1e9:8.2f}  {known.about}")
    print("\nAny hub id or local folder with weights and a tokenizer works too.")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from r2a_utils.doctor import examine

    healthy = True
    for check in examine():
        mark = {True: "ok", False: "BAD", None: "-"}[check.ok]
        print(f"{mark:3}  {check.name:12} {check.found}")
        if check.ok is False:
            healthy = False
            print(f"     {'':12} {check.advice}")
    return 0 if healthy else 1


def _lab(options: argparse.Namespace) -> int:
    from r2a_utils.teaching.lab import open_lab

    try:
        return open_lab(options.others)
    except FileNotFoundError as error:
        return _complain(error, 1)


def _workshop(options: argparse.Namespace) -> int:
    from r2a_utils.publishing.exercises import ExerciseError
    from r2a_utils.runs.parameters import ParameterError
    from r2a_utils.runs.running import run_folder
    from r2a_utils.teaching.handout import WorkshopError, write_workshop

    try:
        written = write_workshop(run=run_folder(options.run_id), overwrite=options.overwrite)
    except (WorkshopError, ExerciseError, ParameterError) as error:
        return _complain(error, 1)
    print(f"{written.exercises} exercises in {written.notebooks} notebooks, in {written.folder}")
    print(f"  to hand out      {written.zip.name}, the same as participants/")
    print("  with solutions   teachers/")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="r2a", description="How reasoning reaches the answer: run the stages, make the book."
    )
    parser.add_argument("--version", action="version", version=f"r2a {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the stages whose inputs have changed")
    run.add_argument(
        "--stages",
        type=lambda text: [name for name in text.split(",") if name],
        metavar="A,B",
        help="names or numbers, as in 01,03; all if left out",
    )
    which = run.add_mutually_exclusive_group()
    which.add_argument(
        "--run-id", default="default", help="the folder under runs/ (default: default)"
    )
    which.add_argument(
        "--all", action="store_true", help="every run of book/runs.yml, with its own parameters"
    )
    which.add_argument(
        "--sweep", type=Path, metavar="FILE", help="every run of a file like book/runs.yml"
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="say which stages would run, and the memory, GPUs and hours that they take; run none",
    )
    run.add_argument(
        "--jobs",
        type=_number,
        default=1,
        metavar="N",
        help="stages of a run side by side on this machine, where none reads what another makes; "
        "each has a copy of the model (default: 1)",
    )
    run.add_argument(
        "--on",
        type=_where_to,
        metavar="WHERE",
        help="runs side by side: ray (this machine), ray://HOST:10001 (a cluster), slurm",
    )
    run.add_argument(
        "--gpu-memory",
        type=float,
        default=80,
        metavar="GB",
        help="of one GPU, from which the number of GPUs of a run follows (default: 80)",
    )
    run.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of sbatch, as in partition=gpu; may be repeated",
    )
    run.add_argument("--params", type=Path, metavar="FILE", help="YAML: parameter names and values")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one parameter, for every stage that has it; wins over FILE; may be repeated",
    )
    run.add_argument(
        "--cell-timeout",
        type=_number,
        metavar="SECONDS",
        help="give up on a cell after this long; no limit if left out",
    )
    run.set_defaults(command=_run)

    workshop = commands.add_parser(
        "workshop", help="write the workshop's notebooks, with and without solutions, and a zip"
    )
    workshop.add_argument(
        "--run-id", default="default", help="the run that the notebooks begin from"
    )
    workshop.add_argument(
        "--overwrite",
        action="store_true",
        help="set copies in which somebody has worked aside and write new ones",
    )
    workshop.set_defaults(command=_workshop)

    pack = commands.add_parser("pack", help="write a run to one file, to be shown elsewhere")
    pack.add_argument("run_id", metavar="RUN", help="the folder under runs/")
    pack.add_argument("file", type=Path, nargs="?", help="RUN.r2a if left out")
    pack.add_argument(
        "--traces", action="store_true", help="with the texts, to run more stages from them"
    )
    pack.set_defaults(command=_pack)

    unpack = commands.add_parser("unpack", help="make a run folder of such a file")
    unpack.add_argument("file", type=Path, metavar="FILE")
    unpack.add_argument("--run-id", help="another name than the one it was packed under")
    unpack.set_defaults(command=_unpack)

    export = commands.add_parser("export", help="write a run's figures and tables for a paper")
    export.add_argument("run_id", metavar="RUN", help="the folder under runs/")
    export.add_argument(
        "--format",
        type=_formats,
        default="pdf,svg,csv",
        metavar="A,B",
        help="of pdf, svg and csv; all if left out",
    )
    export.add_argument("--to", type=Path, metavar="FOLDER", help="exports/RUN if left out")
    export.set_defaults(command=_export)

    for name, command, about in (
        ("book", _book, "build the book from the runs in book/runs.yml"),
        ("models", _models, "list the models known by name and what they need"),
        ("doctor", _doctor, "check this machine: versions, devices, memory"),
        (
            "lab",
            _lab,
            "open JupyterLab, with options of its own, on copies of the notebooks in lab/",
        ),
    ):
        commands.add_parser(name, help=about).set_defaults(command=command)
    return parser


def _name_and_value(text: str, option: str = "--set") -> tuple[str, str]:
    from r2a_utils.runs.parameters import ParameterError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"{option} takes name=value, not {text!r}")
    return name.strip(), value


def _number(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _where_to(text: str) -> str:
    if text in ("ray", "slurm") or text.startswith("ray://"):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: give ray, ray://HOST:10001 or slurm")


def _formats(text: str) -> list[str]:
    from r2a_utils.publishing.export import FORMATS

    asked = [name for name in text.split(",") if name]
    if not asked or not set(asked) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {', '.join(FORMATS)}")
    return asked


def _complain(reason: object, status: int) -> int:
    print(f"r2a: {reason}", file=sys.stderr)
    return status
