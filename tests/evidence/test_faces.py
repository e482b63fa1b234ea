from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # the parser that rich shows Markdown with
from rich.cells import cell_len

from deploycheck.evidence import CandidateRecord, CheckRecord, PromotionRecord, SpecRecord, TargetRecord
from deploycheck.evidence.faces import MOST_REASONS, STYLES, as_markdown, as_table, conclusion
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome
from tests.evidence.records import DIGEST, check, evidence, spec

CHOSEN = CandidateRecord(variant="int8", artifact=DIGEST, path="/cache/model/ab", size=34_200)
MOVED = PromotionRecord(
    registry="sqlite:registry.db", model="digits", alias="staging", variant="int8", artifact=DIGEST,
    previous=None, path="/registry.artifacts/ab",
)  # fmt: skip
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=60)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a terminal that can show colours, whatever the tests themselves run in."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


# The terminal


def test_the_table_says_what_was_measured_and_what_came_of_it() -> None:
    failed = check(metric="learned", verdict="fail", shown="12 % (8 to 17)", threshold=">= 90 % over majority")
    lines = as_table([spec(check(), failed, decision="withheld", reasons=("a: fail",))], 120, color=False).splitlines()
    assert lines[0] == "specs/digits.yaml  digits"
    assert lines[1].split() == ["stage", "check", "verdict", "measured", "threshold"]
    assert lines[2].split() == ["train", "accuracy", "pass", "97.9", "%", "(96.8", "to", "98.7)", ">=", "97", "%"]
    assert "fail" in lines[3]
    assert "12 % (8 to 17)" in lines[3]
    assert ">= 90 % over majority" in lines[3]
    assert lines[4:6] == [
        "withheld: 1 pass, 1 fail",
        "  train::learned: fail: 12 % (8 to 17), the standard is >= 90 % over majority",
    ]


def test_what_the_verdicts_promise_together_is_said() -> None:
    """Errors against a bad model don't add up, as each check must pass; those against a good one do."""
    compared = check(interval=None, confidence=None)
    shown = as_table([spec(check(), check(), check(confidence=0.99), compared)], 100, color=False).splitlines()
    promised = "3 verdicts from samples: a model that misses a standard passes at most 5 times in 100, "
    promised += "and one that just meets them all fails at most 11 times in 100"
    assert promised in shown
    assert f"- {promised}" in as_markdown(evidence(spec(check(), check(), check(confidence=0.99), compared)))
    assert "times in 100" not in as_table([spec(compared)], 100, color=False)


def test_without_colour_there_is_no_escape_code(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    checks = [check(verdict=outcome) for outcome in Outcome]
    for decision in Decision:
        assert "\x1b" not in as_table([spec(*checks, decision=decision)], 100, color=False)


def test_with_colour_good_and_bad_look_different(terminal: None) -> None:
    codes = {}
    for outcome in Outcome:
        table = as_table([spec(check(verdict=outcome))], 100, color=True)
        row = next(line for line in table.splitlines() if "accuracy" in line)
        codes[outcome] = row[row.index("\x1b[") : row.index(outcome.value)]
    assert STYLES.keys() == set(Outcome)
    good, bad = codes[Outcome.PASS], {codes[outcome] for outcome in Outcome if outcome.blocks}
    assert len(bad) == 3
    assert good not in bad
    assert codes[Outcome.WARN] not in bad


def test_colours_change_nothing_of_the_text(terminal: None) -> None:
    specs = [spec(check(), check(verdict="fail"), decision="withheld")]
    plain, coloured = (as_table(specs, 100, color=color) for color in (False, True))
    assert plain != coloured
    assert [line.split() for line in _without_codes(coloured).splitlines()] == [
        line.split() for line in plain.splitlines()
    ]


def _without_codes(text: str) -> str:
    first, *rest = text.split("\x1b[")
    return first + "".join(part.partition("m")[2] for part in rest)


@given(
    st.lists(st.builds(check, stage=PRINTABLE, metric=PRINTABLE, shown=PRINTABLE, threshold=PRINTABLE), max_size=3),
    st.integers(20, 200),
)
@example([check(shown="99.2 % (98.4 to 99.6)" * 3)], 30)
@settings(max_examples=40)
def test_the_table_is_never_wider_than_the_terminal(checks: list[CheckRecord], width: int) -> None:
    title, *lines = as_table([spec(*checks, id="s", name="n")], width, color=False).splitlines()
    assert title == "s  n"
    table = lines[: lines.index("every check passed; the spec has no `promote`")]
    assert len(table) == 1 + len(checks)
    assert max(map(cell_len, table)) <= width


def test_square_brackets_are_text_not_markup() -> None:
    record = check(stage="serve[int8]", metric="[bold]latency[/bold]", shown="[red]3 ms")
    row = as_table([spec(record)], 120, color=False).splitlines()[2]
    assert "serve[int8]" in row
    assert "[bold]latency[/bold]" in row
    assert "[red]3 ms" in row


def test_what_a_path_is_stays_on_one_line_to_be_copied() -> None:
    far = CHOSEN.model_copy(update={"path": "/cache/" + "model/" * 40 + "ab"})
    assert f"it lies in {far.path}" in as_table([spec(check(), chosen=far)], 80, color=False).splitlines()


# The conclusion


def test_what_was_promoted_is_named_with_where_it_stands_and_lies() -> None:
    record = spec(check(), decision=Decision.PROMOTED, chosen=CHOSEN, promotion=MOVED)
    assert list(conclusion(record)) == [
        "promoted: int8 is now digits@staging (sha256:abababababab) in sqlite:registry.db",
        "it lies in /registry.artifacts/ab",
    ]


def test_what_would_be_promoted_is_named_with_how() -> None:
    target = TargetRecord(registry=None, model="digits", alias="staging")
    assert list(conclusion(spec(check(), target=target, chosen=CHOSEN))) == [
        "promotable: int8 (sha256:abababababab), with --deploycheck-promote",
        "it lies in /cache/model/ab",
    ]


def test_what_was_withheld_counts_its_checks_and_says_why() -> None:
    checks = [check(id=verdict, verdict=verdict, shown="1 %", threshold=">= 2 %")
              for verdict in ("pass", "undecided", "pass", "fail")]  # fmt: skip
    broken = check(id="broken", metric="completes", verdict="error", reason="no such file", shown="", threshold=None)
    hanging = check(id="hanging", verdict="error", reached=False, reason="not reached: train failed", shown="")
    reasons = ("fail: fail", "undecided: undecided", "broken: error", "hanging: error", "late: did not run", "and more")
    record = spec(*checks, broken, hanging, decision=Decision.WITHHELD, reasons=reasons, not_run=("late",))
    assert list(conclusion(record)) == [
        "withheld: 2 pass, 1 fail, 1 undecided, 1 error, 1 not reached, 1 did not run",
        "  train::accuracy: undecided: 1 %, the standard is >= 2 %",
        "  train::accuracy: fail: 1 %, the standard is >= 2 %",
        "  train::completes: error: no such file",
        "  and more",
    ]


def test_a_spec_of_which_nothing_ran_says_so() -> None:
    assert next(conclusion(spec(decision=Decision.WITHHELD))) == "withheld: no check ran"


@pytest.mark.parametrize("number", [MOST_REASONS, MOST_REASONS + 1])
def test_of_many_reasons_the_first_are_shown_and_the_rest_counted(number: int) -> None:
    reasons = tuple(f"check {i}: did not run" for i in range(number))
    lines = list(conclusion(spec(decision=Decision.WITHHELD, reasons=reasons)))
    assert lines[1 : 1 + MOST_REASONS] == [f"  {reason}" for reason in reasons[:MOST_REASONS]]
    assert lines[1 + MOST_REASONS :] == (["  and 1 more, in the evidence"] if number > MOST_REASONS else [])


@pytest.mark.parametrize("decision", Decision)
def test_a_waiver_is_shown_whatever_was_decided(decision: Decision) -> None:
    waived = check(verdict="waived", waiver="the tablet has room (until 2999-01-31, by mara)")
    record = spec(waived, check(), decision=decision, promotion=MOVED if decision is Decision.PROMOTED else None)
    waivers = [line for line in conclusion(record) if line.startswith("waived: ")]
    assert waivers == ["waived: train::accuracy, the tablet has room (until 2999-01-31, by mara)"]


# Markdown


def rows(record: SpecRecord) -> list[list[str]]:
    """Return the cells of the one table, as a Markdown parser reads them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(as_markdown(evidence(record)))
    found: list[list[str]] = []
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            found.append([])
        if before.type in ("th_open", "td_open"):
            found[-1].append(token.content)
    assert [token.type for token in tokens].count("table_open") == 1
    return found


def test_the_report_is_a_heading_the_conclusion_and_a_row_a_check() -> None:
    record = spec(check(), check(metric="size", threshold=None, shown="done"), decision="withheld", reasons=("a: b",))
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
    assert row[2] == row[4] == " ".join(breaking.splitlines())
    assert last[0] == "train::size"


def test_what_would_break_the_conclusions_list_does_not() -> None:
    record = spec(check(), decision="withheld", reasons=("one\n\n# two",))
    assert sum(line.startswith("#") for line in as_markdown(evidence(record)).splitlines()) == 1
