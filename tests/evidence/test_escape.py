from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.evidence.escape import markdown, one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\rb"),
        ("\x7f", r"\x7f"),
        ("abc\u202edef\u202c", r"abc\u202edef\u202c"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udc80", r"\udc80"),
        ("lines\r\nand\ttabs\n", "lines\nand\ttabs\n"),
        ("Grüße, 数字 👩‍🔬 µ", "Grüße, 数字 👩‍🔬 µ"),
    ],
)
def test_controls_are_written_out_and_all_other_text_stays(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters() | st.characters(categories=["Cc", "Cs"])))
def test_no_control_character_is_left(text: str) -> None:
    left = {char for char in visible(text) if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")}
    assert left <= {"\n", "\t"}
    assert not set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(visible(text))
    assert not {"\n", "\t"} & set(one_line(text))


@pytest.mark.parametrize("plain", ["97.9 % (96.8 to 98.7)", ">= 97 %", "train::accuracy_drop", "size -3 kB, 2 * 3"])
def test_usual_text_stays_readable(plain: str) -> None:
    assert markdown(plain).replace("\\*", "*") == plain
