"""The ``deploycheck`` command: serve an artifact, look at a registry, promote on evidence, weigh thresholds."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.errors import DeploycheckError

if TYPE_CHECKING:
    from deploycheck.plan import Plan
    from deploycheck.registry import Promotion, Registry
    from deploycheck.runner.run import Runner

CACHE = Path(".deploycheck")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 refused, 2 called wrongly, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except DeploycheckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        print(f"error: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _discard_output() -> None:
    """Have what is still buffered go nowhere, so that the interpreter's exit doesn't fail on it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploycheck", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve an exported artifact (Open Inference Protocol v2)")
    _add_serving(serve)

    registry = commands.add_parser("registry", help="what stands where, how it came there, and the way back")
    registry.add_argument("--registry", metavar="URL", help=f"default: sqlite, in {CACHE}/registry.db")
    registry.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default: {CACHE}")
    actions = registry.add_subparsers(required=True, metavar="ACTION")
    history = actions.add_parser("history", help="every promotion, oldest first")
    history.add_argument("model", nargs="?")
    history.set_defaults(run=_history)
    for name, run, text in (
        ("current", _current, "the version that an alias points at"),
        ("roll-back", _roll_back, "point an alias at the version before"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("model")
        action.add_argument("alias")
        action.set_defaults(run=run)
    actions.add_parser("verify", help="check the history and every promoted artifact").set_defaults(run=_verify)

    promote = commands.add_parser("promote", help="promote what a run's evidence says is promotable")
    promote.add_argument("evidence", type=Path, help="the JSON that --deploycheck-evidence wrote")
    promote.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default: {CACHE}")
    promote.set_defaults(run=_promote)

    lint = commands.add_parser("lint", help="say which thresholds can't be decided, before anything is run")
    lint.add_argument("specs", type=Path, nargs="+", metavar="SPEC", help="spec files, or folders of them")
    lint.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default: {CACHE}")
    lint.set_defaults(run=_lint)

    noise = commands.add_parser("noise", help="measure a model against itself: the smallest regression seen here")
    noise.add_argument("spec", type=Path, metavar="SPEC")
    noise.add_argument("--variant", help="default: the first that the spec serves")
    noise.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default: {CACHE}")
    noise.set_defaults(run=_noise)

    schema = commands.add_parser("schema", help="print a JSON Schema")
    schema.add_argument("of", choices=["spec", "evidence"])
    schema.set_defaults(run=_schema)
    return parser


def _add_serving(parser: argparse.ArgumentParser) -> None:
    """Hand what follows to the server, whose imports nobody else waits for."""
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="see python -m deploycheck.serving --help")
    parser.set_defaults(run=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    from deploycheck.serving.server import add_arguments, run

    parser = argparse.ArgumentParser(prog="deploycheck serve")
    add_arguments(parser)
    return run(parser.parse_args(parsed.rest))


def _registry(parsed: argparse.Namespace) -> Registry:
    from deploycheck.runner.extensions import builtin_extensions
    from deploycheck.runner.registries import open_registry

    return open_registry(parsed.registry, Path.cwd(), parsed.cache.absolute(), builtin_extensions())


def _moves(parsed: argparse.Namespace, registry: Registry, model: str | None) -> Sequence[Promotion]:
    """Return the history; that there is none is an error: a mistyped registry must not look like a whole one."""
    moves = registry.history(model)
    if not moves:
        where = parsed.registry or f"the registry in {parsed.cache}"
        hint = "name another with --registry or --cache, or promote with --deploycheck-promote"
        raise DeploycheckError(f"{model or 'nothing'} was ever promoted in it", where=where, hint=hint)
    return moves


def _history(parsed: argparse.Namespace) -> int:
    for move in _moves(parsed, _registry(parsed), parsed.model):
        came = f"from {move.from_digest[:19]}" if move.from_digest else "first"
        what = f"{move.reason:9}  {move.model}@{move.alias}  {move.to_digest[:19]}"
        print(f"{move.seq}  {move.time}  {what}  {came}  by {move.actor}")
    return 0


def _current(parsed: argparse.Namespace) -> int:
    version = _registry(parsed).current(parsed.model, parsed.alias)
    if version is None:
        raise DeploycheckError(f"{parsed.model}@{parsed.alias} was never promoted")
    print(f"{version.digest}\n{version.path}")
    return 0


def _roll_back(parsed: argparse.Namespace) -> int:
    from deploycheck.runner.conclude import actor

    now = datetime.now(UTC).isoformat(timespec="seconds")
    move = _registry(parsed).roll_back(parsed.model, parsed.alias, actor=actor(), time=now)
    print(f"{move.model}@{move.alias} stands at {move.to_digest} again")
    return 0


def _verify(parsed: argparse.Namespace) -> int:
    registry = _registry(parsed)
    _moves(parsed, registry, None)
    problems = registry.verify()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"problems: {len(problems)}" if problems else "the history adds up, and every promoted artifact is whole")
    return 1 if problems else 0


def _promote(parsed: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from deploycheck.evidence import Evidence
    from deploycheck.evidence.faces import conclusion
    from deploycheck.promotion import Decision
    from deploycheck.runner.conclude import promote
    from deploycheck.runner.extensions import builtin_extensions

    try:
        evidence = Evidence.model_validate_json(parsed.evidence.read_bytes())
    except OSError as error:
        raise DeploycheckError(f"is no evidence: {error.strerror}", where=str(parsed.evidence)) from error
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f"is no evidence: {f'{at}: ' if at else ''}{first['msg']}"
        hint = "give it the JSON that --deploycheck-evidence wrote, with a deploycheck of the same version"
        raise DeploycheckError(what, where=str(parsed.evidence), hint=hint) from error
    targets = [spec for spec in evidence.specs if spec.target]
    if not targets:
        hint = "say in the spec where it goes: promote: {model: NAME, to: ALIAS}"
        raise DeploycheckError("no spec of that run has a `promote`", where=str(parsed.evidence), hint=hint)
    moved, problems = promote(evidence, Path.cwd(), parsed.cache.absolute(), builtin_extensions())
    for spec in moved.specs:
        print("\n".join([spec.id, *(f"  {line}" for line in conclusion(spec))]))
    done = all(spec.decision is Decision.PROMOTED for spec in moved.specs if spec.target)
    return 0 if done and not problems else 1


def _runner(parsed: argparse.Namespace) -> Runner:
    from deploycheck.runner.extensions import builtin_extensions
    from deploycheck.runner.run import Runner

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return Runner(Path.cwd(), parsed.cache.absolute(), uuid.uuid4().hex, builtin_extensions(), progress)


def _plans(file: Path, runner: Runner) -> list[Plan]:
    from deploycheck.language import load
    from deploycheck.plan import plans_of

    path = file.resolve()
    if not path.is_relative_to(runner.root.resolve()):
        hint = f"go to the project it is in, such as {path.parent}"
        raise DeploycheckError("lies outside of this folder", where=str(file), hint=hint)
    extensions = runner.extensions
    specs = load(path, runner.root, extensions.vocabulary)
    file_id = path.relative_to(runner.root.resolve()).as_posix()
    return plans_of(specs, file_id, extensions.subjects, frozenset(extensions.compressors))


def _spec_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files given, and those in the folders given that say that they are specs."""
    from deploycheck.language import is_spec

    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(file for suffix in ("yaml", "yml") for file in path.rglob(f"*.{suffix}"))
        found += [file for file in files if is_spec(file.read_text(encoding="utf-8", errors="replace"))]
    if not found:
        raise DeploycheckError("no spec is there", where=", ".join(map(str, paths)))
    return found


def _lint(parsed: argparse.Namespace) -> int:
    from deploycheck.language import SpecErrors
    from deploycheck.runner.lint import lint
    from deploycheck.runner.noise import floors_of
    from deploycheck.stages import data

    runner = _runner(parsed)
    counts = Counter[str]()
    unseen = []
    for file in _spec_files(parsed.specs):
        try:
            plans = _plans(file, runner)
        except SpecErrors as error:
            print(error)
            counts["error"] += len(error.errors)
            continue
        for plan in plans:
            found = runner.found(plan, "data")
            test = data.read(found.path).splits["test"] if found else None
            unseen += [] if found else [plan.id]
            for finding in lint(runner, plan, test, floors_of(plan, runner.cache)):
                print(f"{finding.severity}: {finding.error}")
                counts[finding.severity] += 1
    if unseen:
        command = f"pytest --deploycheck -m data {' '.join(map(str, parsed.specs))}"
        print(f"not loaded yet, so that the size of its test set isn't known: {', '.join(unseen)}\n  {command}")
    print(", ".join(f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in ("error", "warning")))
    return 1 if counts["error"] else 0


def _noise(parsed: argparse.Namespace) -> int:
    from deploycheck.evidence.show import with_interval
    from deploycheck.language import Dimension
    from deploycheck.runner.noise import measure_noise, remember

    runner = _runner(parsed)
    plans = _plans(parsed.spec, runner)
    if len(plans) != 1:
        raise DeploycheckError(f"it holds {len(plans)} specs, expected one", where=str(parsed.spec))
    noise = measure_noise(runner, plans[0], parsed.variant)
    disturbed = f", {noise.disturbed} disturbed ones taken again" if noise.disturbed else ""
    print(f"{plans[0].id}: {noise.variant} against itself, {noise.schedule}{disturbed}")
    for floor in noise.floors:
        ratio = with_interval(floor.ratio, floor.low, floor.high, Dimension.MULTIPLE)
        seen = f"{floor.smallest:.1%}" if floor.smallest < math.inf else "none"
        print(f"  {floor.metric:14}{ratio:30}smallest regression that a gate here can see: {seen}")
    print(f"written to {remember(noise, plans[0], runner.cache)}: deploycheck lint warns of thresholds within it")
    return 0


def _schema(parsed: argparse.Namespace) -> int:
    from deploycheck import evidence, language

    schema = language.json_schema() if parsed.of == "spec" else evidence.json_schema()
    print(json.dumps(schema, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
