"""What the book cannot be made of is refused in one line before anything runs."""

import pytest

from r2a_utils.publishing.book_runs import PublishError, declared_runs


@pytest.fixture
def refusal(tmp_path):
    """What is told of a text of runs.yml, in a book with a page and a folder."""
    (tmp_path / "intro.md").write_text("# Intro")
    (tmp_path / "teach").mkdir()

    def told(text: str | bytes) -> str:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "runs.yml").write_bytes(content)
        with pytest.raises(PublishError) as error:
            declared_runs(tmp_path)
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    return told


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{id: default, titel: Ours}", "run 1: a run has no 'titel'; did you mean title?"),
        ("{id: default}", "its title must be a text (in quotes), not None"),
        ("{id: default, title: ''}", "its title must be a text"),
        ("{title: Ours}", "its id must be a text (in quotes), not None"),
        ("{id: 7, title: Ours}", "its id must be a text (in quotes), not 7"),
        ("{id: default, title: 7}", "its title must be a text (in quotes), not 7"),
        ("{id: ../x, title: Ours}", "'../x' cannot be a run id"),
        ("{id: intro, title: Ours}", "the book has a page or folder 'intro'"),
        ("{id: Teach, title: Ours}", "the book has a page or folder 'Teach'"),
        ("{id: stages, title: Ours}", "the book has a page or folder 'stages'"),
        ("{id: search, title: Ours}", "the book has a page or folder 'search'"),
        ("{id: a, title: Ours}\n- {id: A, title: Too}", "run 2: the id 'A' stands in an earlier"),
        ("{id: a, title: Ours, parameters: no.yml}", "cannot read the parameter file"),
        ("{id: a, title: Ours, archive: no.r2a}", "its archive must be a file below"),
        ("{id: a, title: Ours, parameters: 3}", "must be names and values or a file, not 3"),
        ("{id: a, title: Ours, stages: '01'}", "must be a list of texts"),
        ("{id: a, title: Ours, stages: [1]}", "must be a list of texts"),
        ("{id: a, title: Ours, stages: []}", "must be a list of texts"),
        ("default", "'default' is no run"),
        ("{id: a, id: b, title: Ours}", "'id' stands there twice"),
        ("{id: a, title: *x}", "an alias"),
        ("{null: a, title: Ours}", "None is no name"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(refusal, entry, told):
    assert told in refusal(f"runs:\n- {entry}\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must hold `runs:`"),
        ("[1]", "must hold `runs:`"),
        ("runs: []\nmore: 1", "must hold `runs:` and nothing else"),
        ("runs:", "a list of one run or more"),
        ("runs: []", "a list of one run or more"),
        ("runs: {id: a}", "a list of one run or more"),
        ("runs: [", "cannot be read: line"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_runs_is_refused(refusal, text, told):
    assert told in refusal(text)


def test_a_book_without_the_file_says_so(tmp_path):
    with pytest.raises(PublishError, match=r"runs.yml cannot be read: No such file"):
        declared_runs(tmp_path)


def test_a_run_may_take_its_parameters_from_a_file(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params/small.yml").write_text("n: 3")
    (tmp_path / "runs.yml").write_text(
        "runs:\n- {id: default, title: Ours, parameters: params/small.yml, stages: ['01']}\n"
    )
    (run,) = declared_runs(tmp_path)
    assert run.parameters == {"n": 3}
    assert run.stages == ["01"]
