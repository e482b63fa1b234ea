"""``deploycheck schema``: print a JSON Schema."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploycheck.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("schema", help="print the JSON Schema of specs or of evidence")
    parser.add_argument("of", choices=["spec", "evidence"])
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the schema."""
    from deploycheck import evidence

    if parsed.of == "evidence":
        return _print(evidence.json_schema())
    from deploycheck import language
    from deploycheck.cli.project import with_project

    return with_project([], lambda project: _print(language.json_schema(project.extensions.vocabulary)))


def _print(schema: dict[str, Any]) -> int:
    print(json.dumps(schema, indent=1, sort_keys=True))
    return 0
