"""Which files of a folder are specs, decided by their top-level keys.

A file that could be a spec is never left out silently.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from enum import StrEnum
from pathlib import Path

import yaml

from deploycheck.language.expect import SECTIONS
from deploycheck.language.source import MOST_BYTES, Key, mapping_keys

KEY = "deploycheck"
"""The top-level key that every spec has."""

SUFFIXES = (".yaml", ".yml", ".json")
"""Of the files that may be specs, in small letters."""

_PARTS = frozenset({*SECTIONS, "model", "optimize", "promote"})
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_BOMS = ("\ufeff", "\xff\xfe", "\xfe\xff")
_CLOSE = 0.8
"""A word is close to ``KEY`` where at least this share of the letters of both match, in order."""
_LETTERS = Counter(KEY)
_CLOSE_LENGTHS = range(len(KEY) - 4, len(KEY) + 6)
"""No text of another length is close to ``KEY``."""


class Recognition(StrEnum):
    """What a file is.

    ``SPEC`` says that it is a spec, or has a top-level key that was probably meant to be ``deploycheck``; ``SKIPPED``
    looks like a spec and doesn't say so; ``OTHER`` is any other file.
    """

    SPEC = "spec"
    SKIPPED = "skipped"
    OTHER = "other"


def recognize_file(path: Path) -> Recognition:
    """Return what a file is; one that can't be read is a spec, so that reading it reports why."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES)
    except OSError:
        return Recognition.SPEC
    return recognize(raw)


def recognize(raw: bytes) -> Recognition:
    """Return what a file with this content is; it is parsed only if it has the words of a spec.

    A file in another encoding than UTF-8 is recognised too: reading it reports the encoding.
    """
    text = _decode(raw)
    if not _has_words(text):
        return Recognition.OTHER
    keys, is_yaml = _keys(text)
    top = {key.name for key in keys if key.depth == 1}
    if not is_yaml:
        top |= _first_words(text)
    if any(_is_close(name) for name in top):
        return Recognition.SPEC
    if not is_yaml:
        return Recognition.SKIPPED if KEY in text else Recognition.OTHER
    inner = {key.name for key in keys if key.depth > 1}
    nested = any(key.name == KEY and key.value == "1" for key in keys)
    parts = len(top & _PARTS)
    return Recognition.SKIPPED if nested or parts > 1 or (parts and "expect" in inner) else Recognition.OTHER


def _decode(raw: bytes) -> str:
    """Return a text in which the letters of ASCII are right, whatever Unicode encoding the file has.

    In UTF-16 and UTF-32, they are bytes of ASCII with zeros between them.
    """
    if b"\0" in raw[:64]:
        return raw.replace(b"\0", b"").decode("latin-1").removeprefix(_BOMS[1]).removeprefix(_BOMS[2])
    return raw.decode("utf-8", "replace").removeprefix(_BOMS[0])


def _has_words(text: str) -> bool:
    """Whether a text may be a spec; where it has no such words, it need not be parsed.

    A word that only shares its letters with ``KEY`` is enough: the keys themselves are compared after parsing.
    """
    if KEY in text or sum(part in text for part in _PARTS) > 1 or "expect" in text:
        return True
    return any(map(_has_its_letters, set(_WORD.findall(text))))


def _has_its_letters(word: str) -> bool:
    """Whether a word shares as many letters with ``KEY``, in any order, as a word that is close to it."""
    if len(word) not in _CLOSE_LENGTHS:
        return False
    lower = word.lower()
    shared = sum(min(lower.count(letter), times) for letter, times in _LETTERS.items())
    return 2 * shared >= _CLOSE * (len(lower) + len(KEY))


def _is_close(word: str) -> bool:
    return _has_its_letters(word) and bool(difflib.get_close_matches(word.lower(), [KEY], n=1, cutoff=_CLOSE))


def _keys(text: str) -> tuple[list[Key], bool]:
    """Return a text's keys, as far as it is YAML, and whether all of it is."""
    keys: list[Key] = []
    try:
        for key in mapping_keys(text):
            keys.append(key)
    except (yaml.YAMLError, RecursionError):
        return keys, False
    return keys, True


def _first_words(text: str) -> set[str]:
    """Return the first word of each line that is indented as little as the first, where a colon follows on the line.

    For a text that isn't YAML: its author may have meant them as keys.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    least = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    found = set()
    for line in lines:
        content = line.strip().lstrip("{?\"' \t")
        word = _WORD.match(content)
        if len(line) - len(line.lstrip()) <= least and word and (":" in content or line.lstrip().startswith("?")):
            rest = content[word.end() :].lstrip("\"' \t")
            if not rest or rest.startswith(":"):
                found.add(word[0])
    return found
