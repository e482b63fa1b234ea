"""Pydantic's errors in the language's words: placed in the file, with what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from deploycheck.language.errors import SpecError, SpecPath, did_you_mean, shorten
from deploycheck.language.resolve import Cell
from deploycheck.language.shape import known_keys
from deploycheck.language.vocabulary import Vocabulary

COMPLETED_LATER = frozenset({"missing", "incomplete"})
"""Types of errors that are not mistakes in a standard, because the specs that extend it complete it."""


def explain(details: Iterable[Any], cell: Cell, vocabulary: Vocabulary) -> list[SpecError]:
    """Return pydantic's error details as errors of the spec, each at its place."""
    ignored = frozenset() if "model" in cell.data else COMPLETED_LATER
    kept = [detail for detail in details if detail["type"] not in ignored]
    return [_explain(detail, cell, vocabulary) for detail in kept if not _is_mistyped(detail, kept)]


def _is_mistyped(detail: Any, details: Sequence[Any]) -> bool:
    """Whether a key is missing because it is there, but mistyped: that is one mistake, not two."""
    if detail["type"] != "missing":
        return False
    *parent, key = detail["loc"]
    beside = [other["loc"][-1] for other in details if _is_unknown_key(other) and [*other["loc"][:-1]] == parent]
    return bool(difflib.get_close_matches(str(key), map(str, beside)))


def _is_unknown_key(detail: Any) -> bool:
    return bool(detail["type"] == "extra_forbidden")


_EXPECTED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
}
"""What pydantic expected, as YAML calls it."""


def _explain(detail: Any, cell: Cell, vocabulary: Vocabulary) -> SpecError:
    path: SpecPath = tuple(part for part in detail["loc"] if part != "[key]")
    is_key = "[key]" in detail["loc"]
    given = detail.get("input")
    match detail["type"]:
        case "mistake" | "incomplete":
            said = detail["ctx"]
            return SpecError(said["what"], cell.place(path, key=said["key"]), said["hint"])
        case "value_error":  # from a validator of a plugin's options
            return SpecError(f"`{_dotted(path)}`: {detail['ctx']['error']}", cell.place(path))
        case "extra_forbidden":
            where = f"in `{_dotted(path[:-1])}`" if len(path) > 1 else "at the top"
            hint = did_you_mean(str(path[-1]), known_keys(path[:-1], vocabulary))
            return SpecError(f"unknown key {path[-1]!r} {where}", cell.place(path, key=True), hint)
        case "missing":
            parent = f"`{_dotted(path[:-1])}`" if len(path) > 1 else "the spec"
            place = cell.place(path[:-1], key=True)
            return SpecError(f"{parent} has no {path[-1]!r}", place, f"add `{path[-1]}: ...`")
        case "language_version":
            hint = "this version of deploycheck reads `deploycheck: 1`"
            return SpecError(f"unknown language version {shorten(given)}", cell.place(path), hint)
        case "literal_error":
            choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            what = f"{shorten(given)} is not one of: {', '.join(choices)}"
            return SpecError(what, cell.place(path, key=is_key), did_you_mean(str(given), choices))
        case "too_long" | "too_short" if isinstance(given, dict):
            found = ", ".join(given) or "none"
            what = f"`{_dotted(path)}` takes one name with its arguments, found {found}"
            return SpecError(what, cell.place(path))
        case "string_pattern_mismatch":
            what = f"{shorten(given)} is not a name: use small letters, digits, '.', '_' and '-', at most 64"
            return SpecError(what, cell.place(path, key=is_key))
    what = detail["msg"][:1].lower() + detail["msg"][1:]
    if detail["type"] in _EXPECTED:
        what = f"expected {_EXPECTED[detail['type']]}"
    found = "" if isinstance(given, dict | list) else f", found {shorten(given)}"
    hint = f"write it with its options: {{{given}: {{}}}}" if isinstance(given, str) and _takes_one(path) else ""
    return SpecError(f"`{_dotted(path)}`: {what}{found}", cell.place(path), hint)


def _takes_one(path: SpecPath) -> bool:
    """Whether the part at ``path`` is a mapping of one name to its options."""
    match path:
        case ("data", "preprocess", int()) | ("train", "optimizer" | "schedule"):
            return True
        case ("compress", "variants", str()) | ("compress", "variants", str(), "method"):
            return True
    return False


def _dotted(path: SpecPath) -> str:
    return ".".join(map(str, path))
