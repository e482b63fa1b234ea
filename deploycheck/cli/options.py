"""What the subcommands' arguments have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--cache``."""
    text = "the cache folder (default: the same as pytest's, .deploycheck in the project's root folder)"
    parser.add_argument("--cache", type=Path, metavar="DIR", help=text)
