"""``deploycheck noise``: compare a model with itself, to find the smallest regression that this machine can show."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.cli.options import add_cache

if TYPE_CHECKING:
    from deploycheck.cli.options import Commands
    from deploycheck.cli.project import Project


def add(commands: Commands) -> None:
    """Add the subcommand."""
    text = "measure a model against itself: the smallest regression that can be seen on this machine"
    parser = commands.add_parser("noise", help=text)
    parser.add_argument("spec", type=Path, metavar="SPEC")
    parser.add_argument("--variant", help="default: the first that the spec serves")
    add_cache(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Measure, print and save."""
    from deploycheck.cli.project import with_project

    return with_project([parsed.spec], lambda project: _noise(parsed.spec, parsed.variant, project), cache=parsed.cache)


def _noise(file: Path, variant: str | None, project: Project) -> int:
    from deploycheck.cli.output import say
    from deploycheck.evidence.show import with_interval
    from deploycheck.language import Dimension
    from deploycheck.plan import only_plan
    from deploycheck.runner.noise import measure_noise, remember

    plan = only_plan(project.plans(file), file)
    with project.runner() as runner:
        noise = measure_noise(runner, plan, variant)
    disturbed = f", {noise.disturbed} disturbed parts measured again" if noise.disturbed else ""
    say(f"{plan.id}: {noise.variant} against itself, {noise.schedule}{disturbed}")
    for floor in noise.floors:
        ratio = with_interval(floor.ratio, floor.low, floor.high, Dimension.MULTIPLE)
        seen = f"{floor.smallest:.1%}" if floor.smallest < math.inf else "none"
        say(f"  {floor.metric:14}{ratio:30}smallest regression that a gate here can see: {seen}")
    written = remember(noise, plan, project.cache)
    say(f"written to {written}: deploycheck lint warns of thresholds that allow less than that")
    return 0
