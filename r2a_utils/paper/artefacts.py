"""The paper's own numbers and artefacts: Zhang et al., "From Reasoning to Answer" (EMNLP 2025).

`published()` holds the numbers that the paper prints, and comes with the package. The authors' data
do not: they are read from a folder that the user names (an argument, or the environment variable
R2A_PAPER_DATA) in plain formats: Parquet, JSON, CSV, and NumPy archives without objects in them.
`originals.py` fetches what the authors published in a safe format. Nothing here reads a pickle.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from r2a_utils.paper.download import fetch as fetch  # paper.fetch: bring what load_originals reads
from r2a_utils.paper.download import originals
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


def published() -> dict:
    """The numbers that the paper and its code print, by stage, with their source."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def published_findings() -> pd.DataFrame:
    """What the paper prints of its three distills, a row a model, in the words of our records.

    Columns: with_reasoning and without_reasoning, shares of right answers on MATH-500; mass, the
    attention answer → reasoning; early_probe and early_boxed_probe, the mean normalised logit
    difference in the early layers under its two probes. Stage 07 shows it beside a run.
    """
    paper = published()
    stage1 = {row["model"]: row for row in paper["stage1_math500"]["rows"]}
    masses = paper["stage2_mean_segment_mass_answer"]
    effects = paper["stage3_patching"]["mean_early_layer_effect"]
    reasoning = masses["columns"].index("reasoning")
    rows = {
        model: [
            stage1[model]["with_reasoning"],
            stage1[model]["without_reasoning"],
            masses[model][reasoning],
            *effects[model],
        ]
        for model in paper["models"]
    }
    shares = ["with_reasoning", "without_reasoning", "mass"]
    columns = [*shares, "early_probe", "early_boxed_probe"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of the authors' data: the one given, or what R2A_PAPER_DATA names."""
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
    subject, level, model_pair_comp.
    """
    traces = pd.read_parquet(_file(folder, "math500_greedy_traces.parquet"))
    traces = traces.rename(columns={"unique_id": "problem_id"})
    return traces.assign(condition=traces["condition"].map(CONDITIONS))


def load_originals(
    folder: str | Path, model_alias: str, condition: str, greedy: bool = False
) -> pd.DataFrame:
    """The 500 fetched traces of one model and condition.

    Columns problem_id, condition, sample (0), problem, response (the whole text), finished (it ends
    in the end-of-sentence token), well_formed (one `</think>`).
    """
    name = f"math500_{'greedy' if greedy else 'sampled'}_{model_alias}_{condition}.jsonl"
    path = data_folder(folder) / name
    if not path.is_file():
        known = ", ".join(file.name for file in originals() if file.lfs)
        raise FileNotFoundError(
            f"{path} is not there: fetch({str(folder)!r}) brings these traces: {known}"
        )
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
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
    "qwen-7B".
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
        attrs={"model": MODEL_NAMES[model_alias], "condition": condition},
    )


def load_patching_case(folder: str | Path | None, model_alias: str) -> xr.DataArray:
    """The authors' patching of case 24: normalised logit difference, dims (layer, position).

    Positions are token indices of the (padded) sequences; the coordinates clean_token and
    corrupted_token name what stands there in either, and the attributes hold both sequences.
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
    index is the authors' case id.
    """
    pairs = pd.read_csv(_file(folder, "coc_pairs.csv"), dtype=str, keep_default_na=False)
    chosen = data_folder(folder) / "coc_selected_case_ids.json"
    if chosen.is_file():
        selected = json.loads(chosen.read_text(encoding="utf-8"))
    else:
        selected = pd.read_csv(_file(folder, "coc_selected_pairs.csv"))["case_id"]
    return pairs.rename_axis("case_id").assign(selected=pairs.index.isin(selected))


def discordant_pairs(
    n: int, with_reasoning: float, without_reasoning: float, t: float
) -> tuple[int, int]:
    """The counts (right only with, right only without reasoning) behind published figures.

    A paired t of 0/1 grades is a function of n and of these two counts alone; of those that fit
    the accuracies as printed (three decimals), the one that gives t is returned. Raises
    ValueError when none or several do to t's six decimals.
    """
    fitting = []
    for difference in range(-n, n + 1):
        if abs(difference / n - (with_reasoning - without_reasoning)) > 0.001:
            continue
        for only_without in range(max(0, -difference), (n - difference) // 2 + 1):
            only_with = only_without + difference
            mean, square = difference / n, (only_with + only_without) / n
            variance = (square - mean**2) * n / (n - 1)
            if variance > 0 and abs(mean / math.sqrt(variance / n) - t) < 1e-6:
                fitting.append((only_with, only_without))
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} pairs of counts give t = {t} with n = {n}: {fitting}")
    return fitting[0]


def _file(folder: str | Path | None, name: str) -> Path:
    path = data_folder(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} is not in {path.parent}")
    return path
