"""Does what plans say: each step once, each check from the artifacts it looks at."""

from deploycheck.runner.extensions import Extensions
from deploycheck.runner.run import NotReached, Runner, StepFailed, prune_runs

__all__ = ["Extensions", "NotReached", "Runner", "StepFailed", "prune_runs"]
