"""A runner whose steps are done: a test says by which artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploycheck.extensions import Extensions
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner.execute import Done
from deploycheck.store import Artifact, write_manifest
from tests.planning import EXTENSIONS


@dataclass
class DoneRunner:
    """It has each step's artifact, or raises an error in place of it, and notes what is asked of it."""

    artifacts: dict[Ref, Artifact]
    errors: Mapping[Ref, Exception] = field(default_factory=dict)
    extensions: Extensions = EXTENSIONS
    reused: bool = False
    because: str = ""
    asked: list[Ref] = field(default_factory=list)
    is_working: bool = False

    def step(self, plan: Plan, ref: Ref) -> Done:
        self.asked.append(ref)
        if ref in self.errors:
            raise self.errors[ref]
        return Done(artifact=self.artifacts[ref], reused=self.reused, seconds=1.23456, because=self.because)

    def steps_done(self, plan: Plan) -> dict[Ref, Done]:
        return {ref: self.step(plan, ref) for ref in self.artifacts if ref in plan.steps}

    @property
    def machine(self) -> DoneRunner:
        return self

    @contextmanager
    def working(self) -> Iterator[None]:
        self.is_working = True
        yield
        self.is_working = False


def write_artifact(folder: Path, ref: Ref, files: Mapping[str, bytes], **meta: Any) -> Artifact:
    """Write files into a folder as the artifact of a step."""
    at = folder / str(ref)
    at.mkdir(parents=True)
    for name, content in files.items():
        (at / name).write_bytes(content)
    return write_manifest(at, ref.kind, "ab" * 32, meta)
