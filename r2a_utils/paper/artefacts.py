"""The authors' files: traces, attention masses, a patching case, question pairs.

They are read from a folder that the user names (an argument, or the environment variable
R2A_PAPER_DATA) in plain formats: Parquet, JSON, CSV, and NumPy archives without objects in them.
`download.py` fetches what the authors published in a safe format. Nothing here reads a pickle.
The traces are read as tables, as problems, and as texts that another model may read (teacher
forcing). The numbers that the paper prints are in `printed.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from r2a_utils.paper.download import originals
from r2a_utils.runs.folder import json_lines
from r2a_utils.texts.tags import R1_TAGS

DATA_VARIABLE = "R2A_PAPER_DATA"
MODEL_NAMES = {
    "llama-8B": "R1-Llama-8B",
    "qwen-7B": "R1-Qwen-7B",
    "qwen-1p5B": "R1-Qwen-1.5B",
    "r1-full": "R1-Full",
}
# The authors' short names for the two conditions.
CONDITIONS = {"withR": "with_reasoning", "withoutR": "without_reasoning"}
# The segment-to-segment masses that the authors kept ("bot" and "eot" are the two tags).
KEPT_MASSES = {
    "a2bos": ("answer", "bos"),
    "a2p": ("answer", "prompt"),
    "a2bot": ("answer", "think"),
    "a2r": ("answer", "reasoning"),
    "a2eot": ("answer", "end_think"),
    "a2a": ("answer", "answer"),
    "r2bos": ("reasoning", "bos"),
    "r2p": ("reasoning", "prompt"),
    "r2bot": ("reasoning", "think"),
    "r2r": ("reasoning", "reasoning"),
}
END_OF_SENTENCE = "<｜end▁of▁sentence｜>"
# The distills whose graded traces are there, and the authors' short names for them.
TRACED = {"R1-Qwen-1.5B": "qwen-1p5B", "R1-Qwen-7B": "qwen-7B"}
# Where the prompt ends and the completion begins, as `render_prompt` writes them.
_PROMPT_ENDS = {
    "with_reasoning": R1_TAGS.open + R1_TAGS.after_open,
    "without_reasoning": R1_TAGS.close + R1_TAGS.after_close,
}


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of the authors' data: the one given, or what R2A_PAPER_DATA names.

    Raises FileNotFoundError where neither names a folder that is there.
    """
    folder = folder or os.environ.get(DATA_VARIABLE)
    if not folder:
        raise FileNotFoundError(
            f"no folder with the paper's data: give one, or set {DATA_VARIABLE} to it"
        )
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"the folder of the paper's data, {folder}, is not there")
    return Path(folder)


def load_traces(folder: str | Path | None = None) -> pd.DataFrame:
    """The authors' 400 graded greedy traces: 100 MATH-500 problems × 2 conditions × 2 models.

    Columns problem_id, model_alias, condition, problem, response (the whole text, from BOS to
    EOS), extracted_answer and is_answer_correct (the authors' grader), answer (the known one),
    subject, level, model_pair_comp. Raises FileNotFoundError where the file is not in the folder,
    as all readers here do. Stage 02 regrades them.
    """
    traces = pd.read_parquet(_file(folder, "math500_greedy_traces.parquet"))
    traces = traces.rename(columns={"unique_id": "problem_id"})
    return traces.assign(condition=traces["condition"].map(CONDITIONS))


def traced_problems(name: str, folder: str | Path | None = None) -> list[dict]:
    """The problems of one distill's traces, as rows of MATH-500: unique_id, problem, answer, …

    `name` is one of `TRACED`. Raises FileNotFoundError as `load_traces` does. Stage 01 asks them.
    """
    traces = _traces_of(name, folder).query("condition == 'with_reasoning'")
    rows = traces.rename(columns={"problem_id": "unique_id"}).drop(columns="response")
    return rows.to_dict("records")


def paper_writer(name: str, folder: str | Path | None = None) -> Callable[..., str]:
    """`write(problem, condition)`: what the distill wrote after that prompt, without the end token.

    `name` is one of `TRACED`. Raises FileNotFoundError as `load_traces` does; `write` raises
    KeyError for a problem of which there is no trace. Stage 01 puts these texts before a model.
    """
    traces = _traces_of(name, folder)
    responses = traces.set_index(["problem_id", "condition"])["response"].to_dict()

    def write(problem, condition: str) -> str:
        _, _, completion = responses[problem.id, condition].partition(_PROMPT_ENDS[condition])
        return completion.removesuffix(END_OF_SENTENCE)

    return write


def load_originals(
    folder: str | Path, model_alias: str, condition: str, greedy: bool = False
) -> pd.DataFrame:
    """The 500 fetched traces of one model and condition.

    Columns problem_id, condition, sample (0), problem, response (the whole text), finished (it ends
    in the end-of-sentence token), well_formed (one `</think>`). Raises FileNotFoundError, with what
    `fetch` would bring, where they are not in the folder.
    """
    name = f"math500_{'greedy' if greedy else 'sampled'}_{model_alias}_{condition}.jsonl"
    path = data_folder(folder) / name
    if not path.is_file():
        known = ", ".join(file.name for file in originals() if file.lfs)
        raise FileNotFoundError(
            f"{path} is not there: fetch({str(folder)!r}) brings these traces: {known}"
        )
    rows = json_lines(path.read_text(encoding="utf-8"), path)
    frame = pd.DataFrame(rows).rename(columns={"unique_id": "problem_id"})
    return frame.assign(
        condition=condition,
        sample=0,
        finished=frame["response"].str.endswith(END_OF_SENTENCE),
        well_formed=frame["response"].str.count(R1_TAGS.close) == 1,
    )[["problem_id", "condition", "sample", "problem", "response", "finished", "well_formed"]]


def load_segment_mass(
    folder: str | Path | None, model_alias: str, condition: str = "with_reasoning"
) -> xr.DataArray:
    """The authors' attention masses, laid out as `segment_mass` lays out its own.

    Dims (trace, layer, head, from_segment, to_segment), float32; the trace coordinate holds
    problem ids. NaN where the authors kept nothing: they kept the masses from the answer, and
    those from the reasoning to what stands before `</think>`. The coordinates `segment_start` and
    `segment_stop` [trace, to_segment] say where the segments lie. `model_alias`: "qwen-1p5B" or
    "qwen-7B". Raises ValueError for another condition, FileNotFoundError where the file is not in
    the folder. Stage 03 shows them beside its own.
    """
    from r2a_utils.texts.trace import SEGMENTS  # needs transformers, which the numbers alone do not

    short = {long: short for short, long in CONDITIONS.items()}
    if condition not in short:
        raise ValueError(f"condition {condition!r}: choose one of {', '.join(short)}")
    path = _file(folder, f"segment_attention_{model_alias}_{short[condition]}.npz")
    with np.load(path, allow_pickle=False) as archive:
        kept = {name: archive[name] for name in KEPT_MASSES}
        ids = archive["unique_id"]
        # The authors' index of "reasoning" is that of its tag; `answer_end` is exclusive and
        # leaves out the end-of-sentence token.
        think, end_think = archive["r_start_idx"], archive["r_end_idx"]
        answer_end = archive["answer_end"]
    zero = np.zeros_like(think)
    starts = [zero, zero + 1, think, think + 1, end_think, end_think + 1]
    borders = np.stack([*starts, answer_end], axis=1)
    shape = (*kept["a2r"].shape, len(SEGMENTS), len(SEGMENTS))
    mass = np.full(shape, np.nan, dtype=np.float32)
    for name, (source, target) in KEPT_MASSES.items():
        mass[..., SEGMENTS.index(source), SEGMENTS.index(target)] = kept[name]
    return xr.DataArray(
        mass,
        dims=("trace", "layer", "head", "from_segment", "to_segment"),
        coords={
            "trace": ids,
            "layer": np.arange(shape[1]),
            "head": np.arange(shape[2]),
            "from_segment": list(SEGMENTS),
            "to_segment": list(SEGMENTS),
            "segment_start": (("trace", "to_segment"), borders[:, :-1]),
            "segment_stop": (("trace", "to_segment"), borders[:, 1:]),
        },
        name="segment_mass",
        attrs={"model": MODEL_NAMES.get(model_alias, model_alias), "condition": condition},
    )


def mass_files(folder: str | Path | None = None) -> dict[str, list[Path]]:
    """The files of attention masses in a folder: the authors' name of a model → its two conditions.

    Raises FileNotFoundError where there are none, or those of one condition alone.
    """
    pattern = "segment_attention_{}_{}.npz"
    found = sorted(data_folder(folder).glob(pattern.format("*", "withR")))
    if not found:
        raise FileNotFoundError(f"no {pattern.format('*', 'withR')} is in {data_folder(folder)}")
    aliases = [path.name.split("_")[2] for path in found]
    return {
        alias: [_file(folder, pattern.format(alias, short)) for short in CONDITIONS]
        for alias in aliases
    }


def patching_cases(folder: str | Path | None = None) -> list[str]:
    """The authors' names of the models whose patching of case 24 lies in a folder; none without.

    Stage 05 shows them.
    """
    try:
        found = data_folder(folder)
    except FileNotFoundError:
        return []
    name = "patching_case_24_{}.json"
    there = {path.name for path in found.glob(name.format("*"))}
    return [alias for alias in MODEL_NAMES if name.format(alias) in there]


def load_patching_case(folder: str | Path | None, model_alias: str) -> xr.DataArray:
    """The authors' patching of case 24: normalised logit difference, dims (layer, position).

    Positions are token indices of the (padded) sequences; the coordinates clean_token and
    corrupted_token name what stands there in either, and the attributes hold both sequences.
    Raises FileNotFoundError where the file is not in the folder. Stage 05 shows it beside its own.
    """
    path = _file(folder, f"patching_case_24_{model_alias}.json")
    case = json.loads(path.read_text(encoding="utf-8"))
    positions = sorted(int(position) for position in case["normalized_logit_diff"])
    columns = [case["normalized_logit_diff"][str(position)] for position in positions]
    grid = np.array(columns).T
    return xr.DataArray(
        grid,
        dims=("layer", "position"),
        coords={
            "layer": np.arange(len(grid)),
            "position": positions,
            "clean_token": ("position", [case["clean_tokens"][p] for p in positions]),
            "corrupted_token": ("position", [case["corrupted_tokens"][p] for p in positions]),
        },
        name="patch_grid",
        attrs={
            "model": MODEL_NAMES[model_alias],
            "clean_tokens": case["clean_tokens"],
            "corrupted_tokens": case["corrupted_tokens"],
        },
    )


def load_question_pairs(folder: str | Path | None = None) -> pd.DataFrame:
    """The authors' 197 contextual-object-comparison pairs: two questions, two answers.

    Columns query_a, answer_a, query_b, answer_b, domain, explanation, and `selected`: whether the
    authors kept the pair (all answers one token in all three models, and more; 103 of them). The
    index is the authors' case id. Raises FileNotFoundError where a file is not in the folder.
    Stage 05 takes questions from here (`pairs`).
    """
    pairs = pd.read_csv(_file(folder, "coc_pairs.csv"), dtype=str, keep_default_na=False)
    chosen = data_folder(folder) / "coc_selected_case_ids.json"
    if chosen.is_file():
        selected = json.loads(chosen.read_text(encoding="utf-8"))
    else:
        selected = pd.read_csv(_file(folder, "coc_selected_pairs.csv"))["case_id"]
    return pairs.rename_axis("case_id").assign(selected=pairs.index.isin(selected))


def _file(folder: str | Path | None, name: str) -> Path:
    path = data_folder(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} is not in {path.parent}")
    return path


def _traces_of(name: str, folder: str | Path | None) -> pd.DataFrame:
    traces = load_traces(folder)
    return traces[traces["model_alias"] == TRACED[name]]
