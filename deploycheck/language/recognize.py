"""Whether a file is a spec, decided by its top-level keys alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import yaml

from deploycheck.language.source import top_level_keys

KEY = "deploycheck"
"""The top-level key that every spec has."""

_USUAL_KEY = re.compile(r"""^\ufeff?["']?([A-Za-z_][\w-]*)["']?\s*:""", re.MULTILINE)
"""A top-level key in the usual form: at the start of a line."""

_WORD = re.compile(r"[A-Za-z_][\w-]*")


def is_spec(text: str) -> bool:
    """Whether a file says that it is a spec, by a top-level key ``deploycheck``, however that is written."""
    return KEY in text and KEY in _keys(text)


def near_miss(text: str) -> str | None:
    """Return the top-level key that was probably meant to be ``deploycheck``, in a file that has none."""
    if not _closest(_WORD.findall(text)):
        return None
    close = _closest(_keys(text))
    return close if close != KEY else None


def _keys(text: str) -> set[str]:
    """Return a text's top-level keys; those in the usual form also where the text is not valid YAML before them."""
    keys = {match[1] for match in _USUAL_KEY.finditer(text)}
    if KEY in keys:
        return keys  # parsing would only cost time
    try:
        for key in top_level_keys(text):
            keys.add(key)
    except (yaml.YAMLError, RecursionError):
        pass
    return keys


def _closest(words: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(KEY, set(words), n=1, cutoff=0.8)), None)
