"""``deploycheck serve``: serve an exported artifact."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploycheck.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the subcommand. The server declares its own arguments, because only it can wait for its imports."""
    text = "serve an exported artifact (Open Inference Protocol v2)"
    # With another prefix, options are left to the server's parser, ``--help`` included.
    parser = commands.add_parser("serve", help=text, add_help=False, prefix_chars="\0")
    parser.add_argument("rest", nargs="*")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Serve until the process is asked to stop."""
    from deploycheck.serving import server

    parser = argparse.ArgumentParser(prog="deploycheck serve")
    server.add_arguments(parser)
    return server.run(parser.parse_args(parsed.rest))
