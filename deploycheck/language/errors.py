"""Errors in a spec: each says where, what and what to do, and all of them are reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

from deploycheck.errors import DeploycheckError

LONGEST, LONGEST_LINE = 80, 200
"""Characters of a value, and of a line, in a message."""

SpecPath = tuple[str | int, ...]
"""The keys and indices that lead from the top of a spec to one of its parts."""


@dataclass(frozen=True)
class Mistake:
    """A mistake at a path of a spec, not yet placed in a file.

    With ``key`` it concerns the key itself, not its value. ``column`` counts from 0 within the value's text, where
    that is known.
    """

    path: SpecPath
    what: str
    hint: str = ""
    _: KW_ONLY
    key: bool = False
    column: int | None = None


@dataclass(frozen=True, order=True)
class Place:
    """A place in a file: ``line`` and ``column`` count from 1, ``text`` is the whole line."""

    file: str
    line: int
    column: int
    text: str = ""


class SpecError(DeploycheckError):
    """One mistake in a spec, with its place."""

    def __init__(self, what: str, place: Place, hint: str = "") -> None:
        super().__init__(what, where=f"{place.file}:{place.line}:{place.column}", hint=hint)
        self.place = place

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}"]
        if self.place.text.strip():
            first = max(0, self.place.column - 1 - LONGEST_LINE // 2) if len(self.place.text) > LONGEST_LINE else 0
            shown = self.place.text[first : first + LONGEST_LINE]
            lines += [f"    {shown}", f"    {' ' * (self.place.column - 1 - first)}^"]
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


class SpecErrors(DeploycheckError):
    """Every mistake found in a spec and in the standards it extends, ordered by place."""

    def __init__(self, errors: Iterable[SpecError]) -> None:
        unique = {(error.place, error.what): error for error in errors}
        self.errors = tuple(sorted(unique.values(), key=lambda error: (error.place, error.what)))
        count = len(self.errors)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the spec")

    def __str__(self) -> str:
        return "\n".join([*(str(error) for error in self.errors), self.what])


def shorten(value: object) -> str:
    """Return a value as messages quote it: its ``repr``, the middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}...{text[-17:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known name that was probably meant, or with all known names; empty if there are none."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        # Two swapped letters are the usual typo: of the close names, one with the same letters is preferred.
        return f"did you mean {min(close, key=lambda other: sorted(other) != sorted(name))!r}?"
    return f"there are: {', '.join(names)}" if names else ""
