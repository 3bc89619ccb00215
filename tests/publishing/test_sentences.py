"""No sentence of the book is one that an unfaithful or an untrained model would print too.

The archives hold what was measured on `r2a-ignorer`, whose answers are made from a note in the
question, and on random weights. Their records go through the pages as they are written today.
"""

import re

import nbformat
import pytest

from r2a_utils.publishing.book_runs import declared_runs
from r2a_utils.publishing.evidence import HOLDS, WEAK
from r2a_utils.publishing.quoted_numbers import ProseError, render
from r2a_utils.publishing.verdicts import judge
from r2a_utils.runs.archive import opened, read_archive
from r2a_utils.runs.folder import Run
from r2a_utils.runs.stage import load_stages

STAGES = load_stages()
ENDS_HERE = "run.end("
KNOWN = {run.id: run.archive for run in declared_runs() if run.archive}
IGNORER, UNTRAINED = "r2a-ignorer", "r2a-untrained"
NOT_USING = (
    "The answer follows the reasoning",
    "The answer follows the text",
    "Some answers follow the reasoning",
    "depends causally on what the reasoning says",
    "The two that change the model point at the same place",
    "Most of the answer goes through the thought",
    "showed on which {term}`token` and in which layers the answer depends",
)
NOT_TRAINED = (
    *NOT_USING,
    "More answers are right after reasoning",
    "The answer looks at the reasoning more than",
    "reads the reasoning more than any of theirs",
    "follows the reasoning more than any of these heads",
    "at least one of them tells these heads from random ones",
)
CAUSAL = (
    "Patching one token of the reasoning flips the answer",
    "The answer takes it up in the middle layers",
)


@pytest.fixture(scope="module")
def records_of(tmp_path_factory):
    """The records of an archive that the book shows, by its id."""

    def records(run_id: str) -> dict:
        folder = opened(KNOWN[run_id], tmp_path_factory.mktemp("known"), run_id)
        return Run.open(folder / run_id).records()

    return records


def prose(run_id: str, records: dict) -> str:
    """What the pages of an archive's stages say, in one line.

    An archive may be older than a number that a paragraph quotes, which is then left out; one of
    which much is left out is to be made anew.
    """
    contents, files = read_archive(KNOWN[run_id])
    run, said, lacking = {"id": run_id, "records": records}, [], 0
    for name in contents["stages"]:
        cells = STAGES[name].notebook.cells
        executed = nbformat.reads(files[f"notebooks/{name}.ipynb"].decode(), as_version=4)
        if ENDS_HERE in executed.cells[-1].source:  # as where no pair can be patched
            cells = cells[: [ENDS_HERE in cell.source for cell in cells].index(True)]
        for cell in cells:
            if cell.cell_type == "markdown":
                try:
                    said.append(render(cell.source, name, run, {}))
                except ProseError:
                    lacking += 1
    assert lacking <= len(said) / 20
    return re.sub(r"\s+", " ", " ".join(said))


def verdicts(run_id: str, records: dict) -> dict[str, str]:
    summary = {"records": records, "title": run_id, "pages": "", "stages": [], "archive": {}}
    [name] = {records["model"]["name"]}
    return judge({run_id: summary}).of(name)


@pytest.mark.parametrize(("run_id", "never"), [(IGNORER, NOT_USING), (UNTRAINED, NOT_TRAINED)])
def test_a_model_that_does_not_use_its_reasoning_is_never_said_to(run_id, never, records_of):
    said = prose(run_id, records_of(run_id))
    assert [sentence for sentence in never if sentence in said] == []


@pytest.mark.parametrize("run_id", [IGNORER, UNTRAINED])
def test_no_sentence_takes_use_for_granted(run_id, records_of):
    """Sentences that stood on every page once, and were false of these two."""
    said = prose(run_id, records_of(run_id))
    for taken in (
        "the answer came from the reasoning before it, which states the same",
        "find the value that counts. **",
        "and {doc}`cutting <06_head_interventions>` change the answer",
    ):
        assert taken not in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", said)  # "\boxed" in a template's own text


def test_heads_that_matter_to_an_ignorer_are_no_sign_of_reasoning(records_of):
    records = records_of(IGNORER)
    assert records["head_interventions"]["verdict"] == "different"
    said = prose(IGNORER, records)
    assert "tells these heads from random ones" in said
    assert "that is no sign that they carry it there" in said


def test_an_ignorer_is_said_to_ignore(records_of):
    said = prose(IGNORER, records_of(IGNORER))
    assert "The answer does not follow the reasoning" in said
    assert "The answer does not follow the text of the reasoning" in said


def test_what_is_never_said_of_them_is_said_by_the_pages_of_some_model():
    """Else a sentence that was reworded would be looked for in vain."""
    written = " ".join(
        cell.source.replace("\n# ", " ").replace("\n", " ")
        for stage in STAGES.values()
        for cell in stage.notebook.cells
    )
    written = re.sub(r"\s+", " ", written)
    assert [sentence for sentence in NOT_TRAINED if sentence not in written] == []


def test_an_unfaithful_model_is_judged_to_look_and_not_to_use(records_of):
    found = verdicts(IGNORER, records_of(IGNORER))
    assert found["There are Reasoning-Focus Heads"] == HOLDS
    assert not {found[claim] for claim in CAUSAL} & {HOLDS, WEAK}


def test_of_random_weights_no_claim_holds(records_of):
    found = verdicts(UNTRAINED, records_of(UNTRAINED))
    assert [claim for claim, verdict in found.items() if verdict in (HOLDS, WEAK)] == []
