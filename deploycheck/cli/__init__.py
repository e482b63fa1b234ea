"""The ``deploycheck`` command: serve an artifact, work with a registry, promote by evidence, check thresholds."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from deploycheck.cli import lint, noise, promote, registry, schema, serve
from deploycheck.errors import DeploycheckError

__all__ = ["main"]

COMMANDS = (serve, registry, promote, lint, noise, schema)
"""One module per subcommand: ``add`` declares its arguments, ``run`` does its work and returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 refused or failed, 2 called wrongly, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except DeploycheckError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        return _failed(f"{error.filename or 'standard output'}: {error.strerror}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploycheck", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _failed(message: str) -> int:
    from deploycheck.cli.output import say_error

    say_error(message)
    return 1


def _discard_output() -> None:
    """Discard what is still buffered, so that the interpreter's exit doesn't fail on it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
