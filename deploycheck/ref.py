"""The typed address of a step, and of what a step uses by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Ref:
    """A step's address in its plan: its kind, and the variants it is about.

    ``Ref("model", ("int8",))`` is written ``model[int8]`` in ids, evidence and errors, and nowhere else: no code
    builds or reads that text to find a step.
    """

    kind: str
    of: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(self.of)}]" if self.of else self.kind


@dataclass(frozen=True)
class Source:
    """Something that a step uses by the name that the spec gives it.

    ``kind`` is a key of ``extensions.KINDS``, or ``models``. ``name`` is an installed name, or the import path of the
    user's own (``package.module:name``). A model is always named by its import path.
    """

    kind: str
    name: str
