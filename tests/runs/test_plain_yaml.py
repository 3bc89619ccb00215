"""YAML holds what it looks like, and nothing that grows."""

import pytest

from r2a_utils.runs.plain_yaml import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1.5", 1.5),
        ("1.0e-3", 0.001),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.2.3", "1.2.3"),
        ("[1, two, 3.0]", [1, "two", 3.0]),
        ("a: {b: true}", {"a": {"b": True}}),
        ("", None),
    ],
)
def test_a_text_is_read_as_people_mean_it(text, value):
    read = read_yaml(text)
    assert read == value and type(read) is type(value)


def grown(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("n: 1\nn: 2", "line 2: 'n' stands there twice"),
        ("a:\n  n: 1\n  n: 2", "line 3: 'n' stands there twice"),
        ("null: 1", "line 1: None is no name"),
        ("? \n: 1", "is no name"),
        ("1: x", "line 1: 1 is no name"),
        ("{[1]: 2}", "is no name"),
        (grown(9), "line 2: an alias"),
        ("a: &a [*a]", "line 1: an alias"),
        ("a: [1", "line "),
        ("a: !!python/object/apply:os.getcwd []", "line 1: could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x00", "special characters"),
        ("a: 1\n---\na: 2", "line 2: but found another document"),
    ],
)
def test_what_is_no_plain_yaml_is_one_line_that_says_where(text, told):
    with pytest.raises(ValueError) as error:
        read_yaml(text)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1
