from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # the parser that rich shows Markdown with

from deploycheck.evidence import SpecRecord
from deploycheck.evidence.escape import visible
from deploycheck.evidence.forms.markdown import MARKDOWN_REPORT, as_markdown
from deploycheck.promotion import Decision
from tests.evidence.records import check, evidence, spec, step


def rows(record: SpecRecord) -> list[list[str]]:
    """Return the text of the cells of the one table, as a Markdown parser reads it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(as_markdown(evidence(record)))
    found: list[list[str]] = []
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            found.append([])
        if before.type in ("th_open", "td_open"):
            found[-1].append("".join(part.content for part in token.children or ()))
    assert [token.type for token in tokens].count("table_open") == 1
    return found


def kinds(text: str) -> set[str]:
    """Return the kinds of inline elements that a Markdown parser finds in a text, HTML and links included."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return {part.type for token in tokens for part in token.children or ()}


def test_the_report_is_a_heading_the_conclusion_and_a_row_a_check() -> None:
    record = spec(
        check(), check(metric="size", threshold=None, shown="done"), decision="withheld", other_reasons=("a: b",)
    )
    text = as_markdown(evidence(record))
    assert text.startswith("## specs/digits.yaml: withheld\n\n- withheld: 2 pass\n")
    assert "a: b" in text
    assert rows(record) == [
        ["check", "verdict", "measured", "threshold", ""],
        ["train::accuracy", "pass", "97.9 % (96.8 to 98.7)", ">= 97 %", ""],
        ["train::size", "pass", "done", "", ""],
    ]


def test_every_spec_has_its_own_part() -> None:
    text = as_markdown(evidence(spec(check(), id="a.yaml"), spec(check(), id="b.yaml")))
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## a.yaml: promotable",
        "## b.yaml: promotable",
    ]
    assert text.count("\n| --- |") == 2


@pytest.mark.parametrize(
    "breaking",
    [
        "a|b",
        "| --- |",
        "two\nlines",
        "two\n\nparagraphs\n| a | b |",
        "a carriage\rreturn",
    ],
)
def test_what_would_break_the_table_does_not(breaking: str) -> None:
    (_, row, last) = rows(spec(check(reason=breaking, shown=breaking), check(metric="size")))
    assert len(row) == 5
    assert row[2] == row[4] == visible(breaking).replace("\n", " ")
    assert last[0] == "train::size"


def test_what_would_break_the_conclusions_list_does_not() -> None:
    reasons = ("one\n\n# two", "# three", "- four", "> five", "6. six", "---", "===")
    text = as_markdown(evidence(spec(check(), decision="withheld", other_reasons=reasons)))
    opened = [token.type for token in MarkdownIt("commonmark").enable("table").parse(text)]
    assert opened.count("heading_open") == 1
    assert opened.count("list_item_open") == 1 + len(reasons) + len(["error rates"])
    assert not {"blockquote_open", "hr", "ordered_list_open"} & set(opened)


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x>",
        "<!-- hidden -->",
        "![seen](http://tracker/pixel.png)",
        "[click](http://evil)",
        "<http://evil>",
        "`code`",
        "``code`|`",
        "**bold** _slanted_ __both__ ~~gone~~",
        "&lt;b&gt;",
        "a\\|b \\\\| c\\",
        "\\<b>",
        "two  \nlines",
    ],
)
def test_text_of_users_is_shown_as_it_is_and_has_no_effect(hostile: str) -> None:
    text = f"because {hostile} so"
    everywhere = check(reason=text, shown=text, waiver=text, verdict="fail")
    record = spec(everywhere, id=text, decision=Decision.WITHHELD, other_reasons=(text,), steps=(step(because=text),))
    (_, row) = rows(record)
    assert row[2] == row[4] == text.replace("\n", " ")
    assert kinds(as_markdown(evidence(record))) <= {"text", "text_special"}


@pytest.mark.parametrize("mention", ["@everyone", "ask @org/team", "(@mara)"])
def test_nobody_is_mentioned(mention: str) -> None:
    record = spec(check(reason=mention), decision=Decision.WITHHELD, other_reasons=(mention,))
    text = as_markdown(evidence(record))
    assert mention not in text
    assert rows(record)[1][4].replace("\u2060", "") == mention
    assert mention not in rows(record)[1][4]


def test_an_alias_of_a_model_is_not_a_mention() -> None:
    assert "digits@staging" in as_markdown(evidence(spec(decision="withheld", other_reasons=("digits@staging moved",))))


@pytest.mark.parametrize("hostile", ["\x1b[31m", "\x9b31m", "\u202e", "\u2069", "\x00", "\r", "\udc80"])
def test_control_characters_are_written_out(hostile: str) -> None:
    record = spec(check(reason=hostile, waiver=hostile), id=hostile, decision="withheld", other_reasons=(hostile,))
    text = MARKDOWN_REPORT.render(evidence(record))
    assert isinstance(text, str)
    assert hostile[0] not in text
    assert rows(record)[1][4] == visible(hostile)
    text.encode()


@given(st.text())
def test_whatever_a_reason_says_is_one_cell_with_that_text(reason: str) -> None:
    (_, row) = rows(spec(check(reason=f"because {reason}.")))
    shown = row[4].replace("\u2060", "")
    assert shown == visible(f"because {reason}.").replace("\n", " ").replace("\t", " ").replace("\u2060", "")


def test_steps_that_were_done_again_are_shown_with_the_reason() -> None:
    text = as_markdown(evidence(spec(check(), steps=(step(step="training", because="source net.py changed"),))))
    assert "- done again: training (source net.py changed)" in text.splitlines()
