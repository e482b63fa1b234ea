"""A kind of step that does what a test says, in place of real work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploycheck.check import Check
from deploycheck.extensions import Extensions
from deploycheck.language import Spec
from deploycheck.language.fields import Section
from deploycheck.ref import Ref, Source
from deploycheck.steps.kind import Making, Metadata, StepKind, Subject


class FakeSettings(Section):
    """What a fake step depends on."""

    of: str
    value: int


class FakeStep(StepKind):
    """It writes its settings (or ``written``) into ``made.json``, after ``work`` was called with what it is given.

    Its subject ``what`` is that file's text.
    """

    settings_type = FakeSettings

    def __init__(self, name: str, *, timed: bool = False) -> None:
        self.name = name
        self.timed = timed
        self.value = 1
        self.roles: dict[str, Ref] = {}
        self.made: list[str] = []
        self.written = ""
        self.work: Callable[[Making], Any] = lambda _: None
        self.subjects: Mapping[str, Subject] = {"what": Subject(self._read)}

    def _read(self, artifact: Any, variant: str | None) -> str:
        path: Path = artifact.file("made.json")
        return path.read_text()

    def ref_for(self, variant: str | None) -> Ref | None:
        return Ref(self.name)

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        return self.roles

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> FakeSettings:
        return FakeSettings(of=",".join(ref.of), value=self.value)

    def sources(self, settings: FakeSettings) -> Iterable[Source]:
        return ()

    def make(self, making: Making) -> Metadata:
        self.made.append(making.settings.of)
        self.work(making)
        (making.out / "made.json").write_text(self.written or making.settings.model_dump_json())
        return {"by": self.name}
