"""The ``deployment`` fixture: what a spec built, for tests that a spec can't express."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from deploycheck.language import Spec
    from deploycheck.stages.data import Dataset
    from deploycheck.store import Artifact


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One variant of a spec: its exported artifact and its data; ``serve()`` starts its server, as the gate does."""

    spec: Spec
    variant: str
    artifact: Artifact
    data: Dataset
    log: Path
    options: tuple[str, ...]
    extensions: tuple[Path, ...]

    @contextmanager
    def serve(self) -> Iterator[Any]:
        """Serve the artifact in a separate process within the block; requests go to the server's ``address``."""
        from deploycheck.serving.process import ServerProcess

        with ServerProcess(self.artifact.path, self.options, self.log, self.extensions) as server:
            yield server


@pytest.fixture
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Give what ``@pytest.mark.deploycheck("specs/digits.yaml", variant="int8")`` names; build it where it isn't."""
    marker = request.node.get_closest_marker("deploycheck")
    gate = request.config.pluginmanager.get_plugin("deploycheck-gate")
    if marker is None or not marker.args:
        raise pytest.UsageError('mark the test: @pytest.mark.deploycheck("specs/NAME.yaml", variant="NAME")')
    if gate is None:
        pytest.skip("needs --deploycheck")
    from deploycheck.language.errors import did_you_mean
    from deploycheck.language.spec import Serve
    from deploycheck.plan import with_needs
    from deploycheck.serving.process import batching_options
    from deploycheck.stages import data
    from deploycheck.steps.data import DATA
    from deploycheck.steps.kind import made_variants
    from deploycheck.steps.outputs import exported

    path, variant = request.config.rootpath / marker.args[0], marker.kwargs.get("variant", "trained")
    plan = gate.plan_for(path)
    if variant not in made_variants(plan.spec):
        known = did_you_mean(variant, made_variants(plan.spec))
        raise pytest.UsageError(f"{marker.args[0]} has no variant {variant!r}; {known}")
    steps = {**plan.steps, **with_needs(plan.spec, [exported(variant)], gate.extensions)}
    plan = replace(plan, steps=steps)
    artifact = gate.runner.step(plan, exported(variant)).artifact
    dataset = data.read(gate.runner.step(plan, DATA).artifact.path)
    return Deployment(
        spec=plan.spec,
        variant=variant,
        artifact=artifact,
        data=dataset,
        log=tmp_path / "server.log",
        options=batching_options((plan.spec.serve or Serve()).batching),
        extensions=gate.extensions.files,
    )
