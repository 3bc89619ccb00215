"""What the built pages load and do not show is taken out of them, and names that mislead.

The theme brings every icon of Font Awesome to every page, 1.4 MB of drawings, of which the book
shows two dozen; only drawings are taken out, the code around them stays. A page without mathematics
needs no MathJax, and the index of all words is for the page that searches it: the field on the
others leads there. Where something stands on a button or on a fold, its name for a screen reader is
that, and not what the theme calls all of its kind; what Sphinx marks up as a list is one.
"""

from __future__ import annotations

import re
from pathlib import Path

ICONS = Path("_static") / "scripts" / "fontawesome.js"
# "name":[width, height, [other names and code points], "code point", "path" or ["path", "path"]]
_ICON = re.compile(
    r'"?(?P<name>[a-z0-9-]+)"?:\[\d+,\d+,\[(?P<others>[^\]]*)\],"[0-9a-f]+",'
    r'(?:"[^"]*"|\["[^"]*"(?:,"[^"]*")*\])\],?'
)
_SHOWN = re.compile(r"\bfa-([a-z0-9-]+)")
STYLES = Path("_static") / "styles" / "pydata-sphinx-theme.css"
_GLYPH = re.compile(r"(?P<names>(?:\.fa-[a-z0-9-]+:{1,2}before,?)+)\{content:[^}]*\}")

_MATHEMATICS = re.compile(r'class="[^"]*\bmath\b')
_MATHJAX = re.compile(
    r"\s*<script>window\.MathJax = .*?</script>|\s*<script[^>]*mathjax/startup\.js[^>]*></script>"
)
_SEARCHING = re.compile(
    r"\s*<script src=\"[^\"]*\b(?:searchtools|language_data|searchindex)\.js\"></script>"
)
_MISNAMED = re.compile(
    r'(<(?:button class="[^"]*\bsearch-button-field\b|summary\b)[^>]*?) aria-label="[^"]*"'
    r'|(<i class="theme-switch [^>]*?)\s+title="[^"]*"'
)
# Parameters of a signature are descriptions of no term; entries of a bibliography are items.
_NO_LIST = re.compile(r'<dl>(?=\s*<dd><em class="sig-param")')
_NO_ITEM = re.compile(r'(?<=<div class="citation" )(id="[^"]*" )role="doc-biblioentry"')


def lighten(html: Path) -> None:
    """Take out of the built book what none of its pages shows; `html` is its folder."""
    _drop_unused_icons(html)
    for path in html.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        lighter = _MISNAMED.sub(r"\1\2", page)
        lighter = _NO_LIST.sub('<dl role="none">', lighter)
        lighter = _NO_ITEM.sub(r'\1role="listitem"', lighter)
        if not _MATHEMATICS.search(page):
            lighter = _MATHJAX.sub("", lighter)
        if path.name != "search.html":
            lighter = _SEARCHING.sub("", lighter)
        if lighter != page:
            path.write_text(lighter, encoding="utf-8")


def _drop_unused_icons(html: Path) -> None:
    """Leave only the icons that a page or a script of the theme names."""
    scripts, styles = html / ICONS, html / STYLES
    named: set[str] = set()
    for path in (*html.rglob("*.html"), *(html / "_static").rglob("*.js")):
        if path != scripts:
            named |= set(_SHOWN.findall(path.read_text(encoding="utf-8")))

    def drawing(icon: re.Match) -> str:
        names = {icon["name"], *re.findall(r'"([^"]+)"', icon["others"])}
        return icon[0] if names & named else ""

    def letter(rule: re.Match) -> str:
        return rule[0] if named & set(_SHOWN.findall(rule["names"])) else ""

    for path, pattern, kept in ((scripts, _ICON, drawing), (styles, _GLYPH, letter)):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            path.write_text(pattern.sub(kept, text), encoding="utf-8")
