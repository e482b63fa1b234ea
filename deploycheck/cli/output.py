"""Lines of output. Text from specs, evidence and exceptions can't send control characters to the terminal."""

from __future__ import annotations

import sys

from deploycheck.evidence.escape import visible


def say(text: str) -> None:
    """Print a result, on standard output."""
    print(visible(text))


def say_progress(line: str) -> None:
    """Print a line of progress, on standard error."""
    print(visible(line), file=sys.stderr, flush=True)


def say_error(message: str) -> None:
    """Print why the command failed, on standard error."""
    print(f"error: {visible(message)}", file=sys.stderr)
