"""Figures draw exactly what they are given, say it in words, and leave no state behind."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from r2a_utils import figures

SEGMENTS = {
    "bos": slice(0, 1),
    "prompt": slice(1, 11),
    "think": slice(11, 12),
    "reasoning": slice(12, 40),
    "end_think": slice(40, 41),
    "answer": slice(41, 55),
}
LENGTH = 55
TOKENS = ["<｜begin▁of▁sentence｜>", *[f" word{i}" for i in range(1, LENGTH)]]
CUES = [SimpleNamespace(word="wait", position=20), SimpleNamespace(word="hmm", position=33)]


def causal_map(seed: int = 0) -> np.ndarray:
    """Attention of a whole trace: [T, T], lower triangular, rows sum to 1."""
    weights = np.tril(np.random.default_rng(seed).exponential(size=(LENGTH, LENGTH)))
    return weights / weights.sum(axis=1, keepdims=True)


def by_steps() -> pd.DataFrame:
    rows = []
    for condition, accuracies in {
        "with_reasoning": [0.99, 0.98, 0.97],
        "without_reasoning": [0.6, 0.3, 0.1],
    }.items():
        for steps, accuracy in zip([1, 4, 8], accuracies, strict=True):
            rows.append(
                (steps, condition, accuracy, max(accuracy - 0.05, 0), min(accuracy + 0.01, 1))
            )
    return pd.DataFrame(rows, columns=["steps", "condition", "accuracy", "ci_low", "ci_high"])


def ranking() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": [16, 1, 19],
            "head": [2, 5, 1],
            "mass": [0.89, 0.88, 0.8],
            "lift": [1.2, 1.1, 1.0],
            "ci_low": [0.87, 0.86, 0.78],
            "ci_high": [0.91, 0.9, 0.82],
            "rank_stability": [1.0, 0.9, 0.5],
        }
    )


def curves() -> pd.DataFrame:
    layers = np.arange(6)
    return pd.concat(
        pd.DataFrame(
            {
                "curve": name,
                "layer": layers,
                "mean": mean,
                "ci_low": mean - 0.1,
                "ci_high": mean + 0.1,
            }
        )
        for name, mean in {
            "answer-flipping reasoning token": np.linspace(1, 0, 6),
            "last token before the answer": np.linspace(0, 1, 6),
            "wrong position (control)": np.zeros(6),
        }.items()
    )


def effects() -> pd.DataFrame:
    frame = curves().rename(columns={"curve": "edges", "mean": "effect"})
    return frame


def intervals(**first) -> pd.DataFrame:
    return pd.DataFrame({**first, "ci_low": [0.1, 0.4], "ci_high": [0.5, 0.9], "n": [30, 40]})


def shares(name: str, values: list[float]) -> dict[str, list[float]]:
    ends = [max(v - 0.1, 0) for v in values], [min(v + 0.1, 1) for v in values]
    return {name: values, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def quality(label: str, value: str, scale: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            label: ["A", "A", "B", "B"],
            "condition": ["with_reasoning", "without_reasoning"] * 2,
            value: np.array([0.9, 0.5, 0.8, 0.85]) * scale,
            "ci_low": np.array([0.85, 0.4, 0.7, 0.8]) * scale,
            "ci_high": np.array([0.95, 0.6, 0.9, 0.9]) * scale,
        }
    )


PANEL = figures.AttentionPanel(causal_map(), 0, SEGMENTS, CUES, "problem 3")
LOSSES = pd.DataFrame({"tokens": [1e6, 2e6, 3e6], "loss": [3.0, 1.0, 0.2]})
FIGURES = {
    "accuracy_by_steps": lambda: figures.accuracy_by_steps(by_steps(), chance=0.1),
    "paired_accuracy": lambda: figures.paired_accuracy(quality("label", "accuracy")),
    "paired_scores": lambda: figures.paired_scores(quality("label", "score", 8.0)),
    "funnel": lambda: figures.funnel(
        pd.DataFrame(
            {"condition": "with_reasoning", "step": ["asked", "kept"], "count": [500, 373]}
        )
    ),
    "training_curve": lambda: figures.training_curve(
        LOSSES,
        pd.DataFrame(
            {"tokens": [1e6, 3e6], "condition": "with_reasoning", "accuracy": [0.1, 0.97]}
        ),
    ),
    "belief_curves": lambda: figures.belief_curves(
        intervals(family=["a", "b"], reader=["probe"] * 2, fraction=[0, 0], value=[0.3, 0.6])
    ),
    "early_answering": lambda: figures.early_answering(
        intervals(series="4 steps", fraction=[0.0, 1.0], value=[0.2, 0.8])
    ),
    "no_cue": lambda: figures.no_cue(
        pd.DataFrame(
            {
                "group": ["all problems", "all problems"],
                "arm": ["plain", "no cue"],
                "n": 40,
                "accuracy": [0.9, 0.7],
                "ci_low": [0.8, 0.6],
                "ci_high": [0.95, 0.8],
                "tokens": [120.0, 80.0],
                "tokens_low": [100.0, 70.0],
                "tokens_high": [140.0, 90.0],
            }
        )
    ),
    "instrument_doses": lambda: figures.instrument_doses(
        pd.DataFrame(
            {
                "instrument": ["knockout"] * 3 + ["lift"] * 3,
                "ladder": [1, 2, 2] * 2,
                "dose": [0.0, 0.5, 1.0] * 2,
                "value": [0.1, 0.4, 0.8, 1.5, 1.4, 1.5],
                "ci_low": [0.0, 0.3, 0.7, 1.3, 1.2, 1.4],
                "ci_high": [0.2, 0.5, 0.9, 1.6, 1.5, 1.6],
                "share": [True] * 3 + [False] * 3,
            }
        )
    ),
    "instrument_aucs": lambda: figures.instrument_aucs(
        pd.DataFrame(
            {
                "instrument": ["knockout", "lift"] * 3,
                "contrast": ["between models"] * 2 + ["by a hint"] * 2 + ["alike"] * 2,
                "auc": [0.9, 0.5, 1.0, 0.4, 0.6, 0.7],
                "lowest": [0.8, 0.4, 0.9, 0.3, 0.5, 0.6],
                "highest": [1.0, 0.6, 1.0, 0.5, 0.7, 0.9],
                "verdict": ["tells in part", "cannot say", "tells", "does not tell", None, None],
            }
        )
    ),
    "edited_answers": lambda: figures.edited_answers(
        pd.concat(
            pd.DataFrame(
                {"kind": kind, "arm": ["as written", "conclusion removed", "dots"], "n": 40}
                | shares("right", [0.9, 0.8, 0.1])
                | shares("same", [1.0, 0.8, 0.1])
            )
            for kind in ("arithmetic", "comparison")
        )
    ),
    "answer_outcomes": lambda: figures.answer_outcomes(
        pd.DataFrame(
            {
                "arm": ["swapped with a similar problem", "mistake in an earlier step, rest kept"],
                "n": [40, 30],
                "follows": [0.9, np.nan],
                "before": [0.02, 0.7],
                "other": [0.08, 0.3],
            }
        )
    ),
    "hints": lambda: figures.hints(
        pd.DataFrame(
            {"arm": ["no hint", "a leaked key"], "n": 40, "right": [0.9, 0.2]}
            | shares("followed", [0.0, 0.8])
            | {"n_followed": [0, 32], "said_followed": [np.nan, 0.5]}
        )
    ),
    "score_panels": lambda: figures.score_panels(
        quality("label", "score", 8.0).assign(panel="R1", differs=[True, True, False, False])
    ),
    "six_boxes": lambda: figures.six_boxes(
        {"with reasoning": np.random.default_rng(0).dirichlet(np.ones(6), 40)}
    ),
    "segment_shares": lambda: figures.segment_shares({"trace 1": np.full(6, 1 / 6)}),
    "attention_maps": lambda: figures.attention_maps([[PANEL, PANEL], [PANEL]], ["L1.H2", "L3.H0"]),
    "head_maps": lambda: figures.head_maps(
        {"answer → reasoning": np.arange(24.0).reshape(6, 4) / 24},
        {"reasoning-focus head": [(5, 3)], "induction head": [(5, 3)], "retrieval head": []},
    ),
    "head_ranking": lambda: figures.head_ranking(ranking(), uniform=0.7),
    "depth_distribution": lambda: figures.depth_distribution([(1, 0), (3, 2), (3, 1)], 6, 0.04),
    "home_answers": lambda: figures.home_answers(by_steps()),
    "home_heads": lambda: figures.home_heads(np.arange(24.0).reshape(6, 4) / 24, [(5, 3), (1, 0)]),
    "home_patching": lambda: figures.home_patching(curves()),
    "trajectories": lambda: figures.trajectories({"L1.H2": (np.linspace(0, 1, 9),) * 2}),
    "cue_lift": lambda: figures.cue_lift(intervals(word=["wait", "hmm"], lift=[0.3, 0.6])),
    "corrected_digits": lambda: figures.corrected_digits(
        pd.DataFrame(
            {"layer": [0, 3], "head": [1, 2], "corrected": [0.1, 0.9], "wrong": [0.2, 0.05]}
        ),
        "L3.H2",
    ),
    "coloured_tokens": lambda: figures.coloured_tokens(
        TOKENS, causal_map()[SEGMENTS["answer"]].mean(axis=0), SEGMENTS, CUES, "problem 3"
    ),
    "one_trace": lambda: figures.one_trace(
        TOKENS, causal_map()[SEGMENTS["answer"]], SEGMENTS, CUES
    ),
    "sentence_page": lambda: figures.sentence_page(
        ["So 3 plus 4 is 7.\n", "Wait, let me check."],
        [0.3, 0.1],
        np.linspace(-9, 0, 8).reshape(4, 2),
        pd.DataFrame({"log_probability": [-4.0, -0.1, -0.1], "written": [False, True, True]}),
        pd.DataFrame({"share": [0.2, 1, 1], "ci_low": [0.1, 0.9, 0.9], "ci_high": [0.3, 1, 1]}),
        pd.DataFrame({"change": [-3.0, 0.1], "random_low": [-0.5] * 2, "random_high": [0.1] * 2}),
        "problem 3",
    ),
    "trace_anatomy": lambda: figures.trace_anatomy({"with reasoning": SEGMENTS}),
    "patch_grid": lambda: figures.patch_grid(
        np.linspace(-0.1, 0.9, 12).reshape(4, 3), [" is", " 6", "{"], [" is", " 5", "{"], [7, 8, 20]
    ),
    "layer_curves": lambda: figures.layer_curves(curves()),
    "flips": lambda: figures.flips(intervals(label=["early layers", "control"], rate=[0.3, 0.6])),
    "knockout_profile": lambda: figures.knockout_profile(effects()),
    "layers_together": lambda: figures.layers_together(
        np.linspace(0, 0.9, 12).reshape(6, 2), [(5, 1), (3, 0)], curves(), effects(), crossing=3
    ),
    "head_sets": lambda: figures.head_sets(
        {"knockout": [0.6, 0.1, 1.0], "zero": [0.0, 0.2, 0.3]}, "Answers turned over", share=True
    ),
    "approximate_against_exact": lambda: figures.approximate_against_exact(
        np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3) ** 2, 0.98, {2: 1.0}
    ),
}


def test_the_named_head_s_digits_are_told_in_the_alternative_text():
    told = FIGURES["corrected_digits"]().alt_text
    assert "1 give the corrected one more. L3.H2 gives the corrected digit 90%" in told
    assert told.endswith("the wrong one 5%.")


def test_every_figure_function_is_tried_here():
    drawing = {n for n in figures.__all__ if callable(getattr(figures, n)) and n[0].islower()}
    words = {"head_list", "head_name", "pair_texts", "pick_view", "reading_table", "show_token"}
    assert drawing - words == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_has_words_labels_and_a_picture_at_page_width(name):
    figure = FIGURES[name]()
    assert len(figure.alt_text) > 40 and figure.alt_text.endswith(".")
    assert "nan" not in figure.alt_text.split()
    assert figure.png().startswith(b"\x89PNG")
    assert figure.get_figwidth() <= 7.5
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    labels = [axes.get_xlabel() + axes.get_ylabel() for axes in shown]
    assert (
        name == "coloured_tokens" or any(labels) or figure.get_supxlabel() or figure.get_supylabel()
    )


def shown_texts(figure) -> list[tuple[str, matplotlib.transforms.Bbox]]:
    """Every text that a reader sees in a figure, with its box in pixels."""
    figure.canvas.draw()
    found = [text for text in _seen(figure) if text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in found]


def _seen(artist):
    """The texts below an artist that are drawn: no hidden panel's, no tick's outside the view."""
    if not artist.get_visible():
        return
    if isinstance(artist, matplotlib.text.Text):
        yield artist
    unseen = []
    if isinstance(artist, matplotlib.axes.Axes) and not artist.axison:
        unseen = [artist.xaxis, artist.yaxis]
    elif isinstance(artist, matplotlib.axis.Axis):
        low, high = sorted(artist.get_view_interval())
        ticks = artist.get_major_ticks() + artist.get_minor_ticks()
        unseen = [t for t in ticks if not low - 1e-9 <= t.get_loc() <= high + 1e-9]
    for child in artist.get_children():
        if child not in unseen:
            yield from _seen(child)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off(name):
    figure = FIGURES[name]()
    paper = figure.bbox
    for text, box in shown_texts(figure):
        assert paper.x0 - 1 <= box.x0 and box.x1 <= paper.x1 + 1, text
        assert paper.y0 - 1 <= box.y0 and box.y1 <= paper.y1 + 1, text


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_on_another(name):
    texts = shown_texts(FIGURES[name]())
    for i, (one, box) in enumerate(texts):
        for other, its in texts[:i]:
            apart = (
                min(box.x1, its.x1) - max(box.x0, its.x0),
                min(box.y1, its.y1) - max(box.y0, its.y0),
            )
            assert min(apart) < 2, (one, other)


def test_names_of_cues_are_left_out_where_there_is_no_room():
    many = [SimpleNamespace(word="alternatively", position=place) for place in range(13, 40, 2)]
    texts = []
    for cues in (CUES, many):
        panel = figures.AttentionPanel(causal_map(), 0, SEGMENTS, cues, "problem 3")
        figure = figures.attention_maps([[panel] * 3] * 2, ["L1.H2", "L3.H0"])
        shown = shown_texts(figure)
        words = [box for text, box in shown if text in ("wait", "hmm", "alternatively")]
        assert [text for text, _ in shown].count("problem 3") == 3  # once a trace
        assert not any(one.overlaps(other) for i, one in enumerate(words) for other in words[:i])
        texts.append(len(words))
    assert texts[0] == 12 and 0 < texts[1] < 6 * len(many)


def test_nine_meanings_have_nine_colours():
    colours = [*figures.SEGMENT_COLOURS.values(), *figures.CONDITION_COLOURS.values()]
    assert len(set(colours)) == len(colours) == 9


def test_a_figure_leaves_matplotlib_as_it_was():
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    with plt.rc_context({"font.size": 31}):
        figure = FIGURES["layer_curves"]()
        assert matplotlib.rcParams["font.size"] == 31
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
    assert figure.axes[0].xaxis.label.get_fontsize() == 9


def test_a_figure_shows_itself_with_its_words():
    shown = FIGURES["funnel"]()._repr_html_()
    assert re.search(r'<img[^>]* alt="Funnel of problems\. [^"]*373 kept', shown)
    assert 'src="data:image/webp;base64,' in shown and "http" not in shown


def test_what_a_page_shows_is_the_figure_to_the_last_pixel():
    figure = FIGURES["funnel"]()
    shown = re.search(r"base64,([\w/+=]+)", figure._repr_html_())[1]
    pictures = [Image.open(io.BytesIO(b)) for b in (figure.png(), base64.b64decode(shown))]
    ours, page = (np.asarray(picture.convert("RGB")) for picture in pictures)
    assert (ours == page).all()
    assert len(base64.b64decode(shown)) < 0.6 * len(figure.png())


def test_alt_text_is_escaped_in_the_page():
    figure = figures.trace_anatomy({'a "quoted" <label>': SEGMENTS})
    assert "&quot;quoted&quot; &lt;label&gt;" in figure._repr_html_()


def test_plots_need_no_torch():
    code = "import sys; from r2a_utils.figures import six_boxes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_accuracy_is_drawn_as_given_in_the_condition_s_colour():
    figure = FIGURES["accuracy_by_steps"]()
    for bars, (condition, rows) in zip(
        figure.axes[0].containers, by_steps().groupby("condition"), strict=True
    ):
        line = bars.lines[0]
        assert line.get_color() == figures.CONDITION_COLOURS[condition]
        np.testing.assert_allclose(line.get_xydata(), rows[["steps", "accuracy"]])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["with reasoning", "without reasoning", "guessing"]


def test_families_have_lines_of_their_own_and_their_own_guessing():
    parts = [
        by_steps().assign(family=family, chance=chance)
        for family, chance in (("a", 0.1), ("b", 0.5))
    ]
    for draw in (figures.accuracy_by_steps, figures.home_answers):
        figure = draw(pd.concat(parts))
        lines = {line.get_linestyle() for line in figure.axes[0].lines}
        assert {"-", "--"} <= lines
        assert ", a " in figure.alt_text and ", b " in figure.alt_text
    both = pd.concat([curves().assign(family=family) for family in "ab"])
    assert "reasoning token, b: 1.00 at 0" in figures.layer_curves(both).alt_text
    assert "reasoning token, b: 1.00 before" in figures.home_patching(both).alt_text


def test_kinds_that_are_no_numbers_are_joined_by_no_line():
    frame = by_steps().assign(steps=["algebra", "geometry", "number theory"] * 2)
    figure = figures.accuracy_by_steps(frame, xlabel="Subject")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(frame["steps"][:3])
    assert {bars.lines[0].get_linestyle() for bars in axes.containers} == {"None"}
    assert "subject: with reasoning 99% at algebra" in figure.alt_text


def test_paired_accuracy_prints_the_difference_in_points():
    texts = [text.get_text() for text in FIGURES["paired_accuracy"]().axes[0].texts]
    assert texts == ["+40.0 points", "-5.0 points"]


def test_boxes_hold_the_masses_of_the_traces():
    for count, names in ((6, SEGMENTS), (7, figures.SEGMENT_COLOURS)):
        masses = np.random.default_rng(1).dirichlet(np.ones(count), 41)
        axes = figures.six_boxes({"run": masses}).axes[0]
        medians = [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 1.4]
        np.testing.assert_allclose(medians, np.median(masses, axis=0))
        faces = [matplotlib.colors.to_hex(box.get_facecolor()).upper() for box in axes.patches]
        assert faces == [figures.SEGMENT_COLOURS[name] for name in names]


def test_a_map_shows_the_weights_with_the_answer_framed():
    weights = causal_map()
    axes = figures.attention_maps([[PANEL]], ["L1.H2"]).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    frame = axes.patches[0]
    assert (frame.get_x(), frame.get_width()) == (11.5, 28)
    assert (frame.get_y(), frame.get_y() + frame.get_height()) == (40.5, LENGTH - 0.5)
    marked = {line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"}
    assert marked == {20, 33}


def test_answer_rows_alone_are_drawn_at_their_own_height():
    answer = SEGMENTS["answer"]
    panel = figures.AttentionPanel(causal_map()[answer], answer.start, SEGMENTS)
    axes = figures.attention_maps([[panel]], ["L1.H2"]).axes[0]
    assert axes.get_ylim() == (LENGTH - 0.5, answer.start - 0.5)


def test_a_long_map_keeps_its_thin_lines():
    weights = np.zeros((1500, 1500))
    weights[1337, 777] = 0.9
    segments = {"prompt": slice(0, 10), "reasoning": slice(10, 1000), "answer": slice(1000, 1500)}
    panel = figures.AttentionPanel(weights, 0, segments)
    for columns, pixels in {1: 450, 3: 150}.items():
        axes = figures.attention_maps([[panel] * columns], ["L0.H0"]).axes[0]
        pooled = axes.images[0].get_array()
        assert pooled.shape == (pixels, pixels)
        assert pooled.max() == 0.9 and (pooled > 0).sum() == 1


def test_head_maps_mark_layer_and_head_not_swapped():
    axes = FIGURES["head_maps"]().axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), np.arange(24.0).reshape(6, 4) / 24)
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines} == {(3, 5)}
    assert axes.images[0].origin == "lower"


def test_layers_without_attention_are_grey_in_a_head_map_and_named():
    values = np.arange(24.0).reshape(6, 4) / 24
    values[[0, 2]] = np.nan
    figure = figures.head_maps({"answer → reasoning": values})
    image = figure.axes[0].images[0]
    assert image.get_clim() == (0.0, 23 / 24)
    assert image.get_array().mask.all(1).tolist() == [True, False, True, False, False, False]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no attention"]
    assert "largest 0.96 at L5.H3; layers without attention: 0, 2." in figure.alt_text


def test_an_even_spread_is_over_the_layers_that_attend():
    heads = [(1, 0), (3, 2), (3, 1)]
    axes = figures.depth_distribution(heads, 4, attending=[1, 3]).axes[0]
    assert axes.lines[0].get_ydata().tolist()[:-1] == [0, 1.5, 0, 1.5]


def test_a_cue_of_one_trace_is_drawn_without_an_interval():
    frame = intervals(word=["all cues", "wait"], lift=[0.25, 0.25])
    frame[["ci_low", "ci_high"]] = np.nan
    figure = figures.cue_lift(frame)
    low, high = figure.axes[0].get_xlim()
    assert low < 0.25 and high > 1 and "nan" not in figure.alt_text


def test_depth_distribution_counts_heads_by_layer():
    heights = [bar.get_height() for bar in FIGURES["depth_distribution"]().axes[0].patches]
    assert heights == [0, 1, 0, 2, 0, 0]


def test_shading_follows_the_weights():
    weights = np.linspace(0, 1, LENGTH)
    figure = figures.coloured_tokens(TOKENS, weights, SEGMENTS, CUES)
    boxes = figure.axes[0].patches
    alphas = np.array([box.get_facecolor()[3] for box in boxes])
    assert (
        len(boxes) == LENGTH and (np.diff(alphas) >= 0).all() and alphas[0] < 0.1 < 0.9 < alphas[-1]
    )
    text = "".join(t.get_text() for t in figure.axes[0].texts)
    assert text == "<BOS>" + "".join(TOKENS[1:])


def test_tokens_stay_inside_the_page():
    figure = figures.coloured_tokens(
        ["\n\n", "x" * 300, "\n", *TOKENS[1:50]],
        np.ones(52),
        {"prompt": slice(0, 26), "answer": slice(26, 52)},
    )
    right = max(box.get_x() + box.get_width() for box in figure.axes[0].patches)
    assert right <= figure.axes[0].get_xlim()[1]


def test_patch_grid_shows_cells_gap_and_both_tokens():
    axes = FIGURES["patch_grid"]().axes[0]
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn[:, [0, 1, 3]], np.linspace(-0.1, 0.9, 12).reshape(4, 3))
    assert np.isnan(drawn[:, 2]).all()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["·is", "·6 ← ·5", "{"]
    assert axes.get_xticks().tolist() == [0, 1, 3]


def test_patch_grid_always_names_the_token_that_differs():
    clean = ["same"] * 200
    corrupted = clean.copy()
    clean[101], corrupted[101] = "yes", "no"
    axes = figures.patch_grid(np.zeros((2, 200)), clean, corrupted).axes[0]
    assert "yes ← no" in [label.get_text() for label in axes.get_xticklabels()]
    assert len(axes.get_xticks()) <= 62


def test_layer_curves_have_the_colours_of_their_segments_and_controls_are_grey():
    lines = {line.get_label(): line for line in FIGURES["layer_curves"]().axes[0].lines}
    reasoning = lines["answer-flipping reasoning token"]
    assert reasoning.get_color() == figures.SEGMENT_COLOURS["reasoning"]
    np.testing.assert_allclose(reasoning.get_ydata(), np.linspace(1, 0, 6))
    assert lines["last token before the answer"].get_color() == figures.SEGMENT_COLOURS["answer"]
    red, green, blue = matplotlib.colors.to_rgb(lines["wrong position (control)"].get_color())
    assert red == green == blue


def test_curves_of_two_models_lie_over_their_shares_of_the_layers():
    single = curves().assign(curve=lambda f: f.curve + " (one case)", ci_low=np.nan, ci_high=np.nan)
    both = pd.concat([curves(), single]).assign(layer=lambda f: f["layer"] / 6)
    figure = figures.layer_curves(both, xlabel="Share of the layers")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "Share of the layers"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), np.arange(6) / 6)
    assert any(0 < tick < 1 for tick in axes.get_xticks())
    assert "1.00 at 0, 0.00 at 0.833" in figure.alt_text


def test_what_is_said_of_an_estimate_is_what_the_text_beside_it_says():
    """A mean over pairs is not the correlation of all their cells, which is 1 here."""
    told = FIGURES["approximate_against_exact"]().alt_text
    assert "rank correlation 0.98; recall of the top 2: 100%" in told


def test_a_map_on_a_log_scale_shows_the_small_beside_the_large():
    values = np.array([[0.0, 0.02], [0.2, 2.0]])
    shades = [
        figures.head_maps({"m": values}, **scale).axes[0].images[0].norm(values)
        for scale in ({}, {"linear_below": 0.01})
    ]
    assert shades[0][0, 1] < 0.02 and shades[1][0, 1] > 0.2
    assert shades[1].ravel().tolist() == sorted(shades[1].ravel())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.layer_curves(curves().drop(columns="mean")), "lacks the column.*'mean'"),
        (
            lambda: figures.accuracy_by_steps(by_steps().assign(condition="sober")),
            "unknown condition",
        ),
        (lambda: figures.six_boxes({"run": np.ones((4, 5))}), "run: masses must be"),
        (lambda: figures.segment_shares({"a": np.ones(6)}), "a: expected the masses of 6 segments"),
        (lambda: figures.patch_grid(np.zeros((2, 3)), ["a"] * 3, ["a"] * 2), "3 positions"),
        (
            lambda: figures.head_maps({"m": np.zeros((2, 2))}, {"good head": []}),
            "unknown kind of head",
        ),
        (lambda: figures.coloured_tokens(TOKENS, [1.0], SEGMENTS), "55 tokens but 1 weights"),
        (lambda: figures.one_trace(TOKENS, np.zeros((3, 55)), SEGMENTS), r"= \(14, 55\)"),
        (
            lambda: figures.approximate_against_exact(np.zeros(3), np.zeros(4), 0, {}),
            "3 and 4 cells",
        ),
    ],
)
def test_a_wrong_input_is_refused_in_words(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_show_token_makes_blanks_visible():
    assert figures.show_token(" the\n") == "·the⏎"
    assert figures.show_token("<｜end▁of▁sentence｜>") == "<EOS>"
    assert figures.show_token("<｜User｜>") == "<User>"
    assert len(figures.show_token("x" * 99)) == 14


def test_head_sets_shows_every_random_set_and_quotes_the_median():
    figure = figures.head_sets({"zero": [-2.0, 0.0, -0.5, -3.0]}, "Change (nats)")
    others, own = figure.axes[0].collections[0], figure.axes[0].collections[-1]
    np.testing.assert_array_equal(others.get_offsets()[:, 0], [0.0, -0.5, -3.0])
    np.testing.assert_array_equal(own.get_offsets(), [[-2.0, 0.0]])
    assert "zero -2.00, random sets -0.50 in the median, from -3.00 to 0.00" in figure.alt_text


def test_the_same_figure_has_the_same_vectors_each_time():
    for kind in ("pdf", "svg"):
        assert FIGURES["funnel"]().vectors(kind) == FIGURES["funnel"]().vectors(kind)


def test_a_readers_own_notebook_keeps_no_vectors(monkeypatch):
    monkeypatch.setattr(figures.BookFigure, "vectors", lambda *_: pytest.fail("drawn"))
    FIGURES["funnel"]()._repr_html_()
