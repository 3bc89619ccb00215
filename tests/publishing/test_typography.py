"""A number and its sign stay together, in prose alone."""

from __future__ import annotations

from docutils import nodes

from r2a_utils.publishing.typography import join_signs


def test_a_number_and_its_sign_stay_on_one_line_and_code_stays_as_it_is():
    bold = nodes.strong("", "95\n%")
    paragraph = nodes.paragraph("", "In 46 % of 10 traces, ", bold, nodes.Text(" a % alone, "))
    paragraph += nodes.literal("", "46 % 2")
    join_signs(paragraph)
    assert (
        paragraph.astext()
        == "In 46\N{NO-BREAK SPACE}% of 10 traces, 95\N{NO-BREAK SPACE}% a % alone, 46 % 2"
    )
