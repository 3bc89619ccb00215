"""The book's visual language: what each colour means, how a figure is set and how it is shown.

Every figure function of the package takes arrays and frames and returns a `BookFigure`. Colours are
those of Okabe and Ito (jfly.uni-koeln.de/color), which stay apart under the common colour-vision
deficiencies; each has one meaning through the whole book: six segments, two conditions. Everything
else (heads, controls, models) is told apart by shape, by position or by shades of grey.
"""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.patches
import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from r2a_utils.runs.vectors import keep_vectors

SEGMENT_COLOURS = {
    "bos": "#999999",
    "examples": "#C9A27E",
    "prompt": "#56B4E9",
    "think": "#F0E442",
    "reasoning": "#E69F00",
    "end_think": "#CC79A7",
    "answer": "#009E73",
}
CONDITION_COLOURS = {"with_reasoning": "#0072B2", "without_reasoning": "#D55E00"}
SEGMENT_LABELS = {
    "bos": "BOS",
    "examples": "examples",
    "prompt": "prompt",
    "think": "opening tag",
    "reasoning": "reasoning",
    "end_think": "closing tag",
    "answer": "answer",
}
SIX = [name for name in SEGMENT_COLOURS if name != "examples"]  # those that every trace has
CONDITION_LABELS = {"with_reasoning": "with reasoning", "without_reasoning": "without reasoning"}

INK = "#222222"
PALE = "#8a8a8a"
PAGE_WIDTH = 7.5  # inches: 750 px, the text column of the book at 100 dots per inch
SCREEN_DPI = 100
FILE_DPI = 160  # sharp on high-density screens, and a page of ten figures stays well under 3 MB

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.parse_math": False,  # a trace's own dollar signs are text, not mathematics
}


class BookFigure(Figure):
    """A matplotlib Figure with a text alternative, shown by notebooks and the book as an image with
    that text.

    It belongs to no pyplot state: nothing needs closing and a cell that returns it shows it once.
    `alt_text` says in words what the figure shows; on a narrow screen the image scrolls sideways
    before its text becomes too small to read.
    """

    def __init__(self, height: float, width: float = PAGE_WIDTH):
        super().__init__(figsize=(width, height), dpi=SCREEN_DPI, layout="constrained")
        FigureCanvasAgg(self)
        self.alt_text = ""

    def png(self) -> bytes:
        """The figure as PNG on its own light background, so that it reads in dark mode too."""
        return self._file("png")

    def vectors(self, kind: str) -> bytes:
        """The figure as `pdf` or `svg` for a paper, the same bytes each time."""
        undated = {"pdf": "CreationDate", "svg": "Date"}[kind]
        # 42: letters as a font that journals take, and can be searched
        with matplotlib.rc_context({"svg.hashsalt": "r2a", "pdf.fonttype": 42}):
            return self._file(kind, metadata={undated: None})

    def _file(self, kind: str, **settings: Any) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format=kind, dpi=FILE_DPI, **settings)
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        width = self.get_figwidth() * SCREEN_DPI
        # the same pixels as the PNG in a third of its bytes: a page holds all of its figures
        webp = self._file("webp", pil_kwargs={"lossless": True})
        keep_vectors(webp, self.vectors)
        picture = base64.b64encode(webp).decode()
        return (
            '<figure class="r2a-figure" style="margin:0;overflow-x:auto">'
            f'<img class="dark-light" alt="{html.escape(self.alt_text, quote=True)}" '
            f'style="width:100%;min-width:{0.72 * width:.0f}px;max-width:{width:.0f}px;'
            'height:auto;background:#fff;border-radius:4px" '
            f'src="data:image/webp;base64,{picture}"></figure>'
        )


def styled(draw: Callable[..., BookFigure]) -> Callable[..., BookFigure]:
    """Draw in the book's style, whatever the caller's matplotlib settings are, and leave those as
    they were.
    """

    # rc_context restores everything but the backend, so the backend must not be among what it sets
    plain = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}

    @functools.wraps(draw)
    def draw_in_style(*args, **kwargs):
        with matplotlib.rc_context({**plain, **STYLE}):
            return draw(*args, **kwargs)

    return draw_in_style


def head_name(layer: int, head: int) -> str:
    """The name of a head as the paper writes it: `L16.H2`."""
    return f"L{layer}.H{head}"


def head_list(heads: Iterable[tuple[int, int]]) -> str:
    """Several heads as the book writes them: "L3.H1, L4.H0"."""
    return ", ".join(head_name(*head) for head in heads)


def plain_tag(piece: str) -> str:
    """A token's text, with R1's tags in characters that every font has: `<BOS>`, `<User>`."""
    if not (piece.startswith("<｜") and piece.endswith("｜>")):
        return piece
    name = piece[2:-2]
    return {"begin▁of▁sentence": "<BOS>", "end▁of▁sentence": "<EOS>"}.get(name, f"<{name}>")


def show_token(piece: str, longest: int = 14) -> str:
    """A token's text made visible and short: spaces, line breaks and tags drawn."""
    visible = plain_tag(piece).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")
    return visible if len(visible) <= longest else visible[: longest - 1] + "…"


def percent_axis(axis, *, low: float = 0.0, high: float = 1.0) -> None:
    """Label a matplotlib axis that carries fractions in per cent."""
    axis.set_major_formatter(matplotlib.ticker.PercentFormatter(xmax=1.0, decimals=0))
    axis.axes.set(
        **{f"{axis.axis_name}lim": (low - 0.02 * (high - low), high + 0.02 * (high - low))}
    )


def segment_legend(figure: Figure, segments: Sequence[str], **kwargs) -> None:
    """Name the colours of `segments` above or below a figure."""
    handles = [
        matplotlib.patches.Patch(facecolor=SEGMENT_COLOURS[s], label=SEGMENT_LABELS[s])
        for s in segments
    ]
    figure.legend(
        handles=handles, ncols=len(handles), handlelength=1.0, columnspacing=1.2, **kwargs
    )


def segment_band(axis, segments: Mapping[str, slice]) -> None:
    """Colour a matplotlib axis that counts a trace's tokens by its segments: a band 5 points thick
    outside the panel.
    """
    axes, thickness = axis.axes, 5
    low, high = sorted(axis.get_view_interval())
    across = axis.axis_name == "x"
    outward = ScaledTranslation(
        *((0, -thickness / 144) if across else (-thickness / 144, 0)), axes.figure.dpi_scale_trans
    )
    place = axes.get_xaxis_transform() if across else axes.get_yaxis_transform()
    for name, span in segments.items():
        ends = np.clip([span.start - 0.5, span.stop - 0.5], low, high)
        if ends[1] > ends[0]:
            axes.plot(
                *((ends, [0, 0]) if across else ([0, 0], ends)),
                color=SEGMENT_COLOURS[name],
                linewidth=thickness,
                solid_capstyle="butt",
                transform=place + outward,
                clip_on=False,
                zorder=4,
            )
    axis.set_tick_params(length=0, pad=thickness + 3)


def require_columns(frame, *names: str) -> None:
    """Refuse a frame that lacks a column, and name the ones that it has."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks the column(s) {missing}; it has {list(frame.columns)}")


def require_known(kind: str, names: Sequence[str], known: dict[str, str]) -> None:
    """Refuse a segment or condition that has no colour in the book."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {kind} {unknown}; the book knows {list(known)}")
