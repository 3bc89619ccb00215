"""What every page of the built book brings besides its text: how it looks when it is shared, how it
is cited, and where the project lies.

The words of the preview are the page's own title and finding; its picture is the main run's three
small figures, for a book that has them. How to cite comes from CITATION.cff alone. Where
`_config.yml` names the public repository, each page links to it. This file is an extension of
Sphinx; it knows nothing of what the pages say.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.image import imread

from r2a_utils.folders import source_folder

PREVIEW = "preview.png"
_INCHES = (12.0, 6.3)  # at 100 dots each: the format that previews are shown in
CITATION = source_folder() / "CITATION.cff"
_LONGEST = 200  # characters of a description: what previews show


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when it loads the extension."""
    app.connect("html-page-context", _add_furniture, priority=600)  # after the theme's own
    return {"parallel_read_safe": True}


def how_to_cite(citation: Path = CITATION, repository: str = "") -> Markup:
    """The project and the paper that it asks after, as BibTeX, from a CITATION.cff."""
    told = yaml.safe_load(citation.read_text(encoding="utf-8"))
    own = {"key": "r2a", "year": "", **told, "url": repository or told.get("repository-code", "")}
    entries = (own, *told.get("references", ()))
    return Markup("\n\n".join(_bibtex(entry) for entry in entries))


def _bibtex(entry: Mapping[str, Any]) -> str:
    """One entry of a CITATION.cff as BibTeX."""
    first = entry["authors"][0]
    key = entry.get("key") or f"{first['family-names']}{entry['year']}".lower()
    fields = {
        "author": " and ".join(
            f"{{{a['name']}}}" if "name" in a else f"{a['family-names']}, {a['given-names']}"
            for a in entry["authors"]
        ),
        "title": f"{{{entry['title']}}}",
        "booktitle": entry.get("collection-title"),
        "pages": f"{entry['start']}--{entry['end']}" if "start" in entry else None,
        "version": entry.get("version"),
        "year": entry.get("year"),
        "url": entry.get("url"),
    }
    kind = "inproceedings" if entry["type"] == "conference-paper" else entry["type"]
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def draw_preview(pictures: Sequence[Path], title: str, target: Path) -> None:
    """The picture of a preview: a title above figures that lie in files, side by side."""
    figure = Figure(_INCHES, dpi=100, facecolor="white")
    figure.text(0.5, 0.9, title, ha="center", va="center", fontsize=36)
    panels = figure.subplots(1, len(pictures), squeeze=False)[0]
    for panel, picture in zip(panels, pictures, strict=True):
        panel.imshow(imread(picture), interpolation="antialiased")
        panel.axis("off")
    figure.subplots_adjust(0.02, 0.03, 0.98, 0.82, wspace=0.04)
    figure.savefig(target)


def preview_tags(title: str, body: str, picture: str, book: str) -> str:
    """The tags by which a page is shown when its address is shared.

    `body` is the page's HTML, `picture` the address of the preview's picture, empty for none.
    """
    told = {
        "og:type": "article",
        "og:site_name": book,
        "og:title": title,
        "og:description": _description(body),
        "og:image": picture,
        "twitter:card": "summary_large_image" if picture else "summary",
    }
    return "\n".join(
        f'<meta property="{name}" content="{html.escape(value)}" />'
        for name, value in told.items()
        if value
    )


def _description(body: str) -> str:
    """A page's finding or, where it has none, its first paragraph, in plain words."""
    finding = re.search(r'(?s)class="r2a-finding.*?<p>(.*?)</p>', body)
    found = finding or re.search(r"(?s)<p>(.*?)</p>", body)
    words = html.unescape(re.sub(r"<[^>]+>", "", found[1])) if found else ""
    words = " ".join(words.split())
    return words if len(words) <= _LONGEST else words[:_LONGEST].rpartition(" ")[0] + " …"


def _add_furniture(app: Any, pagename: str, template: str, context: dict, doctree: Any) -> None:
    if "body" not in context:
        return
    pathto = context["pathto"]
    picture = ""
    if (Path(app.srcdir) / "extra" / PREVIEW).exists():
        base = app.config.html_baseurl.rstrip("/")
        picture = f"{base}/{PREVIEW}" if base else pathto(PREVIEW, resource=True)
    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title", "")))
    book = app.config.html_title or app.config.project
    context["metatags"] = context.get("metatags", "") + preview_tags(
        title, context["body"], picture, book
    )
    page = pathto("references").removesuffix("#")  # which is all that it is on the page itself
    links = [f'<a href="{page}#how-to-cite">Cite this book</a>']
    repository = app.config.html_theme_options.get("repository_url", "")
    if repository:
        links.append(f'<a href="{html.escape(repository)}">The repository</a>')
    context["theme_extra_footer"] = " · ".join(
        part for part in (context.get("theme_extra_footer", ""), *links) if part
    )
