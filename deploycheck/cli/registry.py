"""``deploycheck registry``: what was promoted, what is promoted now, and the way back."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploycheck.cli.options import add_cache
from deploycheck.errors import DeploycheckError

if TYPE_CHECKING:
    from deploycheck.cli.options import Commands
    from deploycheck.cli.project import Project
    from deploycheck.registry import Promotion, Registry


def add(commands: Commands) -> None:
    """Add the subcommand, with its actions."""
    parser = commands.add_parser("registry", help="what was promoted, what is promoted now, and the way back")
    parser.add_argument("--registry", metavar="URL", help="default: sqlite, in registry.db in the cache folder")
    add_cache(parser)
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    history = actions.add_parser("history", help="every promotion, oldest first")
    history.add_argument("model", nargs="?")
    for name, text in (
        ("current", "the version that an alias points at"),
        ("roll-back", "point an alias at the version before"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("model")
        action.add_argument("alias")
    actions.add_parser("verify", help="check the history and every promoted artifact")


def run(parsed: argparse.Namespace) -> int:
    """Do the action on the registry."""
    from deploycheck.cli.project import with_project
    from deploycheck.steps.baseline import open_registry

    def use(project: Project) -> int:
        registry = open_registry(parsed.registry, project.extensions, project.cache)
        return ACTIONS[parsed.action](parsed, registry)

    return with_project([], use, cache=parsed.cache)


def _moves(parsed: argparse.Namespace, registry: Registry, model: str | None) -> Sequence[Promotion]:
    """Return the history. An empty one is an error: a mistyped registry must not look like a good one."""
    moves = registry.history(model)
    if not moves:
        where = parsed.registry or "the registry in the cache folder"
        what = f"{model} was never promoted in it" if model else "nothing was ever promoted in it"
        hint = "name another with --registry or --cache, or promote with --deploycheck-promote"
        raise DeploycheckError(what, where=where, hint=hint)
    return moves


def _history(parsed: argparse.Namespace, registry: Registry) -> int:
    from deploycheck.cli.output import say

    for move in _moves(parsed, registry, parsed.model):
        before = f"from {move.from_digest[:19]}" if move.from_digest else "first"
        what = f"{move.reason:9}  {move.model}@{move.alias}  {move.to_digest[:19]}"
        say(f"{move.seq}  {move.time}  {what}  {before}  by {move.actor}")
    return 0


def _current(parsed: argparse.Namespace, registry: Registry) -> int:
    from deploycheck.cli.output import say

    version = registry.current(parsed.model, parsed.alias)
    if version is None:
        raise DeploycheckError(f"{parsed.model}@{parsed.alias} was never promoted")
    say(f"{version.digest}\n{version.path}")
    return 0


def _roll_back(parsed: argparse.Namespace, registry: Registry) -> int:
    from deploycheck.cli.output import say
    from deploycheck.runner.conclude import actor

    now = datetime.now(UTC).isoformat(timespec="seconds")
    move = registry.roll_back(parsed.model, parsed.alias, actor=actor(), time=now)
    say(f"{move.model}@{move.alias} is {move.to_digest} again")
    return 0


def _verify(parsed: argparse.Namespace, registry: Registry) -> int:
    from deploycheck.cli.output import say, say_error

    _moves(parsed, registry, None)
    problems = registry.verify()
    for problem in problems:
        say_error(problem)
    say(
        f"problems: {len(problems)}" if problems else "the history is consistent, and every promoted artifact is intact"
    )
    return 1 if problems else 0


ACTIONS: Mapping[str, Callable[[argparse.Namespace, Registry], int]] = {
    "history": _history,
    "current": _current,
    "roll-back": _roll_back,
    "verify": _verify,
}
