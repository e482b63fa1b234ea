"""The typed address of a step."""

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
