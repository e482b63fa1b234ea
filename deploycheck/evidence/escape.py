"""Text from users and from exceptions, made safe to show: it can't hide, forge or style anything."""

from __future__ import annotations

import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but for tab and newline (C0, C1), line separators, bidirectional controls, lone surrogates."""
_INLINE = re.compile(
    r"[\\`*\[\]|~$]"  # code, emphasis, links, images, cells, mathematics
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; an underscore inside a word is not
    r"|&(?=#?\w+;)"  # a character by its name
)
_BLOCK = re.compile(r"^(\d*)([-+>#=.)])")
"""What would begin a list, a quotation or a heading."""
_MENTION = re.compile(r"(?<!\w)@(?=\w)")
_WORD_JOINER = "&#8288;"


def visible(text: str) -> str:
    r"""Return the text with every control character written out, such as ``\x1b``; tabs and newlines stay."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the text with its control characters written out, and its lines and columns joined by spaces."""
    return visible(text).replace("\t", " ").replace("\n", " ")


def json_text(text: str) -> str:
    r"""Return JSON in which every control character of a text is written as ``\u009b``, which reads the same."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def markdown(text: str) -> str:
    """Return the text as one line of GitHub's Markdown, for use within a line or a cell, that shows it as it is.

    No markup, image, HTML or mention in it has any effect. An address such as ``https://...`` still becomes a link.
    """
    plain = _INLINE.sub(r"\\\g<0>", one_line(text).strip())
    return _MENTION.sub("@" + _WORD_JOINER, plain.replace("<", "&lt;"))


def markdown_block(text: str) -> str:
    """Return the text as ``markdown`` does, for use at the start of a line or of a list's item."""
    return _BLOCK.sub(r"\1\\\2", markdown(text))
