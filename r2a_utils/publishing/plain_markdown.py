"""The book's Markdown for readers that know no MyST: JupyterLab and GitHub show it as it stands.

Roles become their text, folded admonitions become `<details>`, other admonitions quotations, labels
go. What is not MyST's is left alone.
"""

from __future__ import annotations

import re

_ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?P<text>[^`<]*?)(?:\s*<(?P<target>[^`>]+)>)?`")
_LABEL = re.compile(r"(?m)^\([\w:.-]+\)=\n")
_DIRECTIVE = re.compile(
    r"(?ms)^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\}(?P<title>[^\n]*)\n"
    r"(?P<options>(?::[\w-]+:[^\n]*\n)*)(?P<body>.*?)^(?P=fence)[ \t]*$"
)
_ADMONITIONS = {"admonition", "note", "tip", "hint", "warning", "important", "seealso", "dropdown"}
_STAGE = re.compile(r"(?:.*/)?(\d\d_\w+)$")
_CITATION = re.compile(r"([a-z]+)(\d{4})\w*")


def plain_markdown(text: str) -> str:
    """MyST as Markdown; a link to a stage leads to the notebook of that name beside this one."""
    return _ROLE.sub(_role, _DIRECTIVE.sub(_directive, _LABEL.sub("", text)))


def without_answers(text: str) -> str:
    """MyST without the admonitions titled "Answer"; in their place one may write."""

    def answer(match: re.Match) -> str:
        titled = match["name"] == "admonition" and match["title"].strip() == "Answer"
        return "*Your answer:*" if titled else match[0]

    return _DIRECTIVE.sub(answer, text)


def _role(match: re.Match) -> str:
    text, target = match["text"], match["target"]
    if match["role"] == "doc":
        stage = _STAGE.match(target or text)
        return f"[{text}]({stage[1]}.ipynb)" if stage else text.rpartition("/")[2]
    if match["role"].startswith("cite"):
        names = [_CITATION.sub(_author_and_year, key.strip()) for key in text.split(",")]
        listed = "; ".join(names)
        return f"({listed})" if match["role"] == "cite:p" else listed
    return text


def _author_and_year(match: re.Match) -> str:
    return f"{match[1].title()} {match[2]}"


def _directive(match: re.Match) -> str:
    if match["name"] not in _ADMONITIONS:
        return match[0]
    title = match["title"].strip() or match["name"].title()
    body = match["body"].strip("\n")
    if "dropdown" in match["name"] + match["options"]:
        return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
    lines = [f"**{title}**", "", *body.splitlines()]
    return "\n".join(f"> {line}".rstrip() for line in lines)
