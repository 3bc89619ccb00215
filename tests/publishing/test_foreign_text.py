"""Text that is not ours does nothing on a page: it shows as what it is, in every field there is."""

import html
import json
import re
from pathlib import Path

import pytest
from book_visit import Visit
from markdown_it import MarkdownIt

from r2a_utils.publishing.book import publish
from r2a_utils.publishing.foreign_text import code, html_of, inert
from r2a_utils.publishing.quoted_numbers import render
from r2a_utils.runs.running import run_stages
from r2a_utils.runs.stage import ROOT

pytestmark = pytest.mark.xdist_group("book")

SCRIPT = "<script>window.r2aHit = 1</script>"
SECRET = "what-only-a-file-of-this-machine-says"
PAYLOADS = {
    "script": SCRIPT,
    "picture": '<img src="data:," onerror="window.r2aHit = 1">',
    "raw": f"```{{raw}} html\n{SCRIPT}\n```",
    "raw_after_a_line": f"x\n\n```{{raw}} html\n{SCRIPT}\n```\n",
    "colon_fence": f":::{{raw}} html\n{SCRIPT}\n:::",
    "tilde_fence": f"\n\n~~~{{raw}} html\n{SCRIPT}\n~~~",
    "include": "\n\n```{literalinclude} SECRET_FILE\n```",
    "code": f"a`{SCRIPT}`b",
    "comment": f"<!-- --> {SCRIPT} -->",
    "table": f"a | {SCRIPT} |\n\n# A heading",
    "link": "[a](javascript:window.r2aHit=1) <javascript:window.r2aHit=1>",
    "role": "{download}`SECRET_FILE` {doc}`nowhere` [](#nowhere)",
    "label": "\n(label)=\n# Label",
    "template": "{{ 7 * 191 }} {% for %}",
    "mathematics": "$\\href{javascript:window.r2aHit=1}{x}$ *a* _b_ **c** ~~d~~ [e] {#f}",
    "entity": "&lt;script&gt; &#96;",
    "closing": f'"></p></script></style>--> {SCRIPT}',
}


HARMLESS = ["r2a-tiny", "p < 0.05", "a_b", "L3.H2", "C:\\x"]


@pytest.mark.parametrize("text", [*PAYLOADS.values(), *HARMLESS])
def test_a_quotation_shows_its_own_signs(text):
    """In CommonMark with HTML on, as text, as code and within a table."""
    written = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for page in (inert(text), code(text), f"| a |\n|---|\n| {code(text)} {inert(text)} |"):
        shown = written.render(page)
        assert not re.search(r"<(script|img|a|h1|li|em|strong|pre)\b", shown)
        assert " ".join(text.split()) in html.unescape(shown)


def test_cells_that_show_markdown_show_no_html():
    shown = html_of(f"**bold** `<think>` {SCRIPT}\n\n| a |\n|---|\n| ` {SCRIPT} |")
    assert "<strong>bold</strong>" in shown and "&lt;think&gt;" in shown and "<script" not in shown


def test_what_is_between_backticks_is_code_whatever_it_holds():
    run = {"id": "default", "records": {"model": {"name": "a`b|c"}, "fine": {"name": "a_b-1.5B"}}}
    assert render("`{{ fine.name }}` and {term}`{{ fine.name }}`", "p", run, {}) == (
        "`a_b-1.5B` and {term}`a_b-1.5B`"
    )
    assert render("`{{ model.name }}`", "p", run, {}) == "<code>a&#96;b&#124;c</code>"


STAGE = """\
# ---
# jupyter:
#   r2a:
#     writes: [records/foreign, records/answer_quality]
# ---

# %% [markdown]
# # One
#
# {% for name, text in foreign.items() %}
# {{ text }} stands in a line of its own, and {{ text }} within; as code `{{ text }}`.
#
# - **{{ text }}** in a list
#
# | {{ name }} | of a table |
# |---|---|
# | {{ text }} | `{{ text }}` |
# {% endfor %}

# %% tags=["parameters"]
run_dir = "runs/default"
text = "x"
model_name = "x"
dataset = "x"

# %%
import json, sys
import pandas as pd
from IPython.display import Markdown
from r2a_utils import figures
from r2a_utils.figures.style import BookFigure, styled
from r2a_utils.figures.views import token_view
from r2a_utils.runs import Run
from r2a_utils.texts import Trace
payloads = json.loads(text)
run = Run.open(run_dir)
run.write_record("foreign", payloads)
quality = {"n": 1, "with_reasoning": 1.0, "without_reasoning": 0.0, "difference": 1.0}
run.write_record("answer_quality", {**quality, "ci_low": 0.0, "ci_high": 1.0})
print(*payloads.values(), model_name, dataset)
pd.DataFrame(payloads, index=pd.Index(payloads.values(), name=payloads["script"]))

# %%
pd.DataFrame({value: [1] for value in payloads.values()}).T.rename_axis(payloads["picture"])

# %%
Markdown("\\n\\n".join(f"In {model_name}: {value}" for value in payloads.values()))

# %%
@styled
def titled():
    figure = BookFigure(2)
    figure.add_subplot().set(title="\\n".join(payloads.values()))
    figure.alt_text = f"{model_name} " + " ".join(payloads.values())
    return figure

titled()

# %%
import numpy as np
tokens = ["<s>", "q", "<think>", *payloads.values(), "</think>", *payloads.values()]
n = len(payloads)
edges = [0, 1, 2, 3, 3 + n, 4 + n, 4 + 2 * n]
names = ["bos", "prompt", "think", "reasoning", "end_think", "answer"]
borders = {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(names)}
trace = Trace(tuple(range(len(tokens))), tuple(tokens), borders, model=model_name)
uniform = np.full((n, len(tokens)), 1 / len(tokens))
token_view(trace, dict.fromkeys(payloads.values(), uniform), title=payloads["closing"])
"""
INTRO = """\
# Home

{% for name, text in foreign.items() %}
## {{ text }}

{{ text }}: [{{ text }}](status.md) `{{ text }}`

![{{ text }}](status.md)

```{admonition} {{ text }}
{{ text }}
```
{% endfor %}

{{ comparison.table("answers") }}

{{ comparison.figure() }}
"""
TOC = {
    "format": "jb-book",
    "root": "intro",
    "parts": [{"caption": "All", "chapters": [{"glob": "stages/*"}, {"file": "status"}]}],
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """The folder of the pages of a book, in whose every field stands what would do harm."""
    folder = tmp_path_factory.mktemp("hostile")
    for path in ("notebooks", "book/assets/mathjax", "book/assets/live"):
        (folder / path).mkdir(parents=True)
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    payloads = {k: v.replace("SECRET_FILE", str(secret)) for k, v in PAYLOADS.items()}
    (folder / "notebooks/01_one.py").write_text(STAGE)
    (folder / "book/intro.md").write_text(INTRO)
    (folder / "book/status.md").write_text((ROOT / "book/status.md").read_text())
    (folder / "book/references.bib").write_text("")
    (folder / "book/assets/mathjax/startup.js").write_text("")
    (folder / "book/_toc.yml").write_text(json.dumps(TOC))
    runs = [{"id": "default", "title": payloads["script"]}]
    for number, text in enumerate(payloads.values()):
        given = {"model_name": f"org/{text}"}
        runs.append({"id": f"not-made-{number}", "title": text, "parameters": given})
    (folder / "book/runs.yml").write_text(json.dumps({"runs": runs}))
    given = {
        "text": json.dumps(payloads),
        "model_name": f"/home/ann/{payloads['code']}",
        "dataset": "/home/ann/problems|.jsonl",
    }
    run_stages(folder / "runs/default", given=given, notebooks=folder / "notebooks", progress=False)
    model = {"name": given["model_name"], "device": payloads["table"], "layers": 2}
    (folder / "runs/default/records/model.json").write_text(json.dumps(model))
    first_page, _ = publish(
        folder / "book", folder / "runs", folder / "_build", notebooks=folder / "notebooks"
    )
    return first_page.parent


PAGES = ("intro.html", "stages/01_one.html", "status.html")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_in_a_run_acts_on_a_page(browser, hostile, name):
    with Visit(browser, hostile, name) as visit:
        page = visit.page
        page.wait_for_timeout(100)
        assert page.evaluate("window.r2aHit") is None
        assert page.locator("[onerror], a[href^='javascript']").count() == 0
        text = page.locator("article").text_content()  # of what is folded, too
        assert SCRIPT in text and "{{ 7 * 191 }}" in text and "1337" not in text
        assert not [fault for fault in visit.faults if "asked the network" in fault]


def test_no_file_of_this_machine_and_no_folder_of_it_is_on_a_page(hostile):
    for path in hostile.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
    for name in PAGES:
        assert "/home/ann" not in (hostile / name).read_text(encoding="utf-8")
