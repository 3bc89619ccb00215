"""Folders of a machine are shown by a name, and nothing else is touched."""

import nbformat
import pytest

from r2a_utils.runs.execution import clean
from r2a_utils.runs.local_paths import (
    is_folder_of_a_machine,
    shown_folders,
    without_folders,
)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/home/ann/models/mine", True),
        ("C:\\Users\\ann\\mine", True),
        ("deepseek-ai/DeepSeek-R1", False),
        ("data/problems.jsonl", False),
        ("http://localhost:8000/v1", False),
        (3, False),
    ],
)
def test_an_absolute_path_is_known(value, told):
    assert is_folder_of_a_machine(value) is told


def test_only_whole_paths_are_replaced_and_no_picture_is_touched():
    folders = shown_folders({"model_name": "/data/my models/<b>", "n": 3, "other": "/data/x"})
    text = (
        'a = "/data/x" /data/x/y, /data/xy, far/data/x, /data/x. '
        'src="data:image/png;base64,/data/x+/data/x" &lt;b&gt;: /data/my models/&lt;b&gt;'
    )
    assert without_folders([text], folders) == [
        'a = "…/x" …/x/y, /data/xy, far/data/x, …/x. '
        'src="data:image/png;base64,/data/x+/data/x" &lt;b&gt;: …/&lt;b&gt;'
    ]


def test_a_folder_that_ends_in_a_slash_goes_with_the_way_to_it():
    folders = {"/opt/venv/": "", "/opt": "~"}
    text = "/opt/venv/bin/python file:///opt/x http://host/opt/x /option"
    assert without_folders(text, folders) == "bin/python file://~/x http://host/opt/x /option"


@pytest.mark.parametrize("home", ["/", "/r", "/data"])
def test_a_page_survives_any_home(monkeypatch, tmp_path, home):
    """The home of a container's numeric user is /."""
    monkeypatch.setenv("HOME", home)
    picture = '<img src="data:image/png;base64,iVBORw0KGgo/data/r/x+/r/"> a/r/b </r> 1 / 2'
    output = nbformat.v4.new_output("display_data", data={"text/html": picture})
    cell = nbformat.v4.new_code_cell("x = 3 / 4  # /r/data", outputs=[output])
    clean(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert cell.source == "x = 3 / 4  # /r/data"
    assert cell.outputs[0].data["text/html"] == picture
