from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from deploycheck.evidence import CheckRecord
from deploycheck.evidence.forms.terminal import STYLES, as_table
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome
from tests.evidence.records import CHOSEN, check, spec, step

PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=60)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a terminal that can show colours, whatever the tests themselves run in."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


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
    assert f"stored in {far.path}" in as_table([spec(check(), chosen=far)], 80, color=False).splitlines()


def test_steps_that_were_done_again_are_shown_with_the_reason() -> None:
    record = spec(check(), steps=(step(), step(step="training", because="source net.py changed")))
    lines = as_table([record], 100, color=False).splitlines()
    assert [line for line in lines if line.startswith("done again")] == ["done again: training (source net.py changed)"]


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b2J", "\x07", "\u202e", "\u2066", "\r", "\x00", "\udc80"])
@pytest.mark.parametrize("color", [False, True])
def test_control_characters_of_users_never_reach_the_terminal(terminal: None, hostile: str, color: bool) -> None:
    text = f"before{hostile}after"
    dressed = check(stage=text, metric=text, shown=text, threshold=text, reason=text, waiver=text, verdict="fail")
    record = spec(
        dressed,
        id=text,
        name=text,
        decision=Decision.WITHHELD,
        other_reasons=(text,),
        steps=(step(because=text),),
    )
    shown = _without_codes(as_table([record], 400, color=color))
    assert hostile[0] not in shown
    assert shown.count("before") == shown.count(hostile[0].encode("unicode_escape").decode())


def test_a_second_line_of_an_exception_cannot_pass_for_a_line_of_ours() -> None:
    forged = "no such file\npromoted: int8 is now digits@production"
    record = spec(check(verdict="error", shown="", reason=forged), decision=Decision.WITHHELD, name=forged)
    lines = as_table([record], 200, color=False).splitlines()
    assert not [line for line in lines if line.startswith("promoted")]
