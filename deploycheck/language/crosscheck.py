"""What can only be said of a spec as a whole: names that must exist, parts that need each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from deploycheck.language.errors import did_you_mean
from deploycheck.language.expect import Expectation, Mistake, written
from deploycheck.language.names import IMPORT_PATH, SEEDED, check_import, import_hint, optax_functions, wrong_arguments
from deploycheck.language.source import Path_
from deploycheck.language.spec import ANSWERS, LABEL, TARGETS, Split
from deploycheck.language.vocabulary import Vocabulary

TRAINED, BASELINE = "trained", "baseline"
MEANINGS = {TRAINED: "the model before compression", BASELINE: "what is promoted now"}
METHODS = ("quantize", "prune", "distill")
POLICIES = ("smallest", "fastest", "most_accurate")
OF_NUMBERS = ("rmse", "mae", "r2")


def names(data: dict[str, Any], root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    """Check the names a spec takes from elsewhere: code, optimisers, loaders, steps, runtimes, registries.

    It works on plain data, so that these are found in a spec whose structure is wrong elsewhere.
    """
    return [
        *_code(data, ("model", "build"), root, SEEDED),
        *_loader(data, root, vocabulary),
        *_file(data, root),
        *_steps(data, root, vocabulary),
        *_optimizer(data),
        *_methods(data, root, vocabulary),
        *_known(data, ("serve", "runtime"), vocabulary.runtimes, "runtime"),
        *_registry(data, vocabulary),
    ]


def own_metrics(data: dict[str, Any], root: Path, builtin: Vocabulary) -> list[Mistake]:
    """Check the metrics that a spec defines itself: their code, and that their names are free."""
    mistakes = []
    for name in _mapping(data, "metrics"):
        mistakes += _code(data, ("metrics", name, "use"), root, ANSWERS)
        if isinstance(name, str) and builtin.find(name):
            mistakes.append(
                Mistake(("metrics", name), f"{name!r} is a metric already", "name yours otherwise", key=True)
            )
    return mistakes


def standard(data: dict[str, Any]) -> list[Mistake]:
    """Check a standard (no model): it is completed by the specs that extend it; some parts only they can have."""
    hint = "leave it to the specs that extend this"
    return [
        Mistake((name,), f"a standard can't have `{name}`", hint, key=True)
        for name in ("promote", "matrix", "waive")
        if name in data
    ]


def _get(data: Any, path: Path_) -> Any:
    for part in path:
        if not isinstance(data, dict):
            return None
        data = data.get(part)
    return data


def _code(data: dict[str, Any], path: Path_, root: Path, filled: frozenset[str] = frozenset()) -> list[Mistake]:
    written, given = _get(data, path), _get(data, (*path[:-1], "with"))
    if not isinstance(written, str) or not IMPORT_PATH.fullmatch(written):
        return []
    arguments = given if isinstance(given, dict) else {}
    mistakes = []
    for wrong in check_import(written, root, arguments, filled):
        argument = _argument(wrong, arguments)
        at = (*path[:-1], "with", *argument) if argument else path
        mistakes.append(Mistake(at, *_halves(wrong), key=bool(argument)))
    return mistakes


def _split(path: Path_, wrong: str) -> Mistake:
    return Mistake(path, *_halves(wrong))


def _loader(data: dict[str, Any], root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    load = _get(data, ("data", "load"))
    if isinstance(load, str) and (":" in load or "." in load):
        if not IMPORT_PATH.fullmatch(load):
            return [Mistake(("data", "load"), f"{load!r} is no import path", import_hint(load))]
        return _code(data, ("data", "load"), root)
    return _known(data, ("data", "load"), vocabulary.loaders, "loader")


def _file(data: dict[str, Any], root: Path) -> list[Mistake]:
    """Check the file that a loader is given: it is there, and in the project."""
    at = ("data", "with", "path")
    written = _get(data, at)
    if not isinstance(written, str):
        return []
    try:
        path = (root / written).resolve()
        inside, there = path.is_relative_to(root.resolve()), path.exists()
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL in it, a circle of links
        return [Mistake(at, f"no file can be reached by {written[:80]!r}")]
    if not inside:
        return [Mistake(at, f"{written} lies outside of {root.name}/", "move the file into the project")]
    return [] if there else [Mistake(at, f"there is no file {written}", f"paths are from {root.name}/")]


def _known(data: dict[str, Any], path: Path_, known: Collection[str], kind: str) -> list[Mistake]:
    name = _get(data, path)
    if not isinstance(name, str) or name in known:
        return []
    return [Mistake(path, f"unknown {kind} {name!r}", did_you_mean(name, known))]


def _steps(data: dict[str, Any], root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    mistakes = []
    steps = _get(data, ("data", "preprocess"))
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        name = next(iter(step)) if isinstance(step, dict) and len(step) == 1 else None
        if name is None or name in vocabulary.steps:
            continue
        path: Path_ = ("data", "preprocess", index, name)
        if ":" in name:
            mistakes += [_split(path, wrong) for wrong in check_import(name, root, None)]
        else:
            mistakes.append(
                Mistake(
                    path,
                    f"unknown preprocessing step {name!r}",
                    did_you_mean(name, vocabulary.steps),
                    key=True,
                )
            )
    return mistakes


def _optimizer(data: dict[str, Any]) -> list[Mistake]:
    chosen = _get(data, ("train", "optimizer"))
    if not isinstance(chosen, dict) or len(chosen) != 1:
        return []
    ((name, given),) = chosen.items()
    known = optax_functions("_src.alias")
    path: Path_ = ("train", "optimizer", name)
    if not known:
        return []  # optax is not installed: the training says so
    if name not in known:
        return [Mistake(path, f"optax has no optimiser {name!r}", did_you_mean(name, known), key=True)]
    arguments = given if isinstance(given, dict) else {}
    return [
        Mistake((*path, *_argument(wrong, arguments)), *_halves(wrong), key=True)
        for wrong in wrong_arguments(name, known[name], arguments, frozenset())
    ]


def _argument(wrong: str, given: Iterable[str]) -> Path_:
    """Return the argument that a message is about, to point at it."""
    return next(((name,) for name in given if repr(name) in wrong.partition(";")[0]), ())


def _halves(wrong: str) -> tuple[str, str]:
    what, _, hint = wrong.partition("; ")
    return what, hint


def _methods(data: dict[str, Any], root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    mistakes = []
    variants = _get(data, ("compress", "variants"))
    for variant, section in variants.items() if isinstance(variants, dict) else ():
        method = section.get("method") if isinstance(section, dict) else None
        name = next(iter(method)) if isinstance(method, dict) and len(method) == 1 else None
        if name is None or (name in vocabulary.compressors and name not in METHODS):
            continue
        path: Path_ = ("compress", "variants", variant, "method", name)
        if name in METHODS:
            mistakes.append(Mistake(path, f"`{name}` stands in `method`", f"write `{name}:` in its place", key=True))
        elif ":" in name:
            mistakes += [_split(path, wrong) for wrong in check_import(name, root, None)]
        else:
            hint = did_you_mean(name, vocabulary.compressors)
            mistakes.append(Mistake(path, f"unknown compression method {name!r}", hint, key=True))
    return mistakes


def _registry(data: dict[str, Any], vocabulary: Vocabulary) -> list[Mistake]:
    url = _get(data, ("promote", "registry"))
    scheme = url.partition(":")[0] if isinstance(url, str) else None
    if scheme is None or scheme in vocabulary.registries:
        return []
    hint = did_you_mean(scheme, vocabulary.registries)
    return [Mistake(("promote", "registry"), f"unknown registry {scheme!r}", hint)]


def structure(data: dict[str, Any], expected: list[Expectation], own: dict[str, Any]) -> list[Mistake]:
    """Check how the parts of a spec fit together; a standard is checked where a spec has completed it.

    ``own`` is what the spec's own file says: what its standard expects of variants needs none to be made.
    """
    mistakes = _variants(data)
    if "model" in data:
        mistakes += [
            *_needs(data),
            *(_no_variants(data) if "compress" in own else ()),
            *_split_sums(data),
            *_served(data),
            *_targets(data, expected),
            *_slices(data, expected),
            *_multiples(data, expected),
            *_baselines(data, expected),
            *_scenario(data, expected),
            *_promotion(data),
            *_waivers(data),
        ]
    return mistakes


def _needs(data: dict[str, Any]) -> list[Mistake]:
    """A stage needs those before it."""
    before = {"model": ("data", "train"), "compress": ("train",), "serve": ("train",), "optimize": ("train",)}
    return [
        Mistake((name,), f"`{name}` needs a section `{needed}`", f"add `{needed}:`", key=True)
        for name, every in before.items()
        for needed in every
        if name in data and needed not in data
    ]


def _split_sums(data: dict[str, Any]) -> list[Mistake]:
    split = _get(data, ("data", "split"))
    if not isinstance(split, dict):
        return []
    shares = [split.get(name, Split.model_fields[name].default) for name in ("train", "validation", "test")]
    if any(isinstance(share, bool) or not isinstance(share, int | float) for share in shares):
        return []  # the structure is wrong, which is reported as such
    if abs(sum(shares) - 1) < 1e-9:
        return []
    return [Mistake(("data", "split"), f"train, validation and test sum to {sum(shares):g}, expected 1")]


def _mapping(data: dict[str, Any], *path: str) -> dict[str, Any]:
    found = _get(data, path)
    return found if isinstance(found, dict) else {}


def _no_variants(data: dict[str, Any]) -> list[Mistake]:
    if not isinstance(data["compress"], dict) or data["compress"].get("variants", {}) != {}:
        return []
    return [Mistake(("compress",), "`compress` has no 'variants'", "add a variant", key=True)]


def _made(data: dict[str, Any]) -> list[str]:
    """Return every variant there is, the trained model first."""
    return [TRAINED, *(name for name in _mapping(data, "compress", "variants") if name not in MEANINGS)]


def _variants(data: dict[str, Any]) -> list[Mistake]:
    variants = {name: it for name, it in _mapping(data, "compress", "variants").items() if isinstance(it, dict)}
    sources = {name: it["from"] for name, it in variants.items() if isinstance(it.get("from"), str)}
    mistakes = []
    for name, variant in variants.items():
        path: Path_ = ("compress", "variants", name)
        if name in MEANINGS:
            what = f"{name!r} is {MEANINGS[name]}; name the variant otherwise"
            mistakes.append(Mistake(path, what, key=True))
        methods = [*(key for key in METHODS if key in variant), *_mapping(variant, "method")]
        misspelt = variant.keys() - {*METHODS, "from", "expect", "method"}
        if len(methods) > 1 or not (methods or misspelt):
            found = ", ".join(methods) or "none"
            hint = "build one variant `from` another to chain methods"
            mistakes.append(Mistake(path, f"a variant has one method, found {found}", hint, key=True))
        source = sources.get(name, TRAINED)
        if source not in _made(data):
            mistakes.append(Mistake((*path, "from"), *_no_variant(source, data)))
        elif _circular(name, sources):
            mistakes.append(Mistake((*path, "from"), f"{name} is made from itself, directly or not"))
    return mistakes


def _no_variant(name: str, data: dict[str, Any]) -> tuple[str, str]:
    return f"there is no variant {name!r}", did_you_mean(name, _made(data))


def _circular(name: str, sources: dict[str, str]) -> bool:
    seen, at = {name}, sources.get(name)
    while at in sources:
        if at in seen:
            return at == name
        seen.add(at)
        at = sources[at]
    return False


def _served(data: dict[str, Any]) -> list[Mistake]:
    served = _get(data, ("serve", "variants"))
    names = [name for name in served if isinstance(name, str)] if isinstance(served, list) else []
    mistakes = [
        Mistake(("serve", "variants", index), *_no_variant(name, data))
        for index, name in enumerate(served if isinstance(served, list) else ())
        if isinstance(name, str) and name not in _made(data)
    ]
    if len(set(names)) < len(names):
        mistakes.append(Mistake(("serve", "variants"), "a variant stands here twice"))
    return mistakes


def _targets(data: dict[str, Any], expected: list[Expectation]) -> list[Mistake]:
    """What is said of classes needs a model that gives classes; what is said of numbers, one that gives numbers."""
    loss = _get(data, ("train", "loss")) or "cross_entropy"
    target = TARGETS.get(loss) if isinstance(loss, str) else None
    if target is None:
        return []  # the structure is wrong, which is reported as such
    other, hint = ("classes", f"measure {', '.join(OF_NUMBERS)}") if target == "number" else ("numbers", "")
    hint = hint or "train with `loss: squared_error`"
    what = f"of {other}, and with `loss: {loss}` the model gives {'numbers' if target == 'number' else 'classes'}"
    mistakes = [
        Mistake(item.path, f"{item.name} is {what}", hint, key=True)
        for item in expected
        if item.metric.target not in ("", target)
    ]
    if target == "number" and _get(data, ("train", "stop_early", "watch")) == "validation.accuracy":
        mistakes.append(Mistake(("train", "stop_early", "watch"), f"accuracy is {what}", "watch validation.loss"))
    if target == "number" and _get(data, ("promote", "choose")) == "most_accurate":
        mistakes.append(Mistake(("promote", "choose"), f"accuracy is {what}", "choose smallest, or fastest"))
    return mistakes


def _slices(data: dict[str, Any], expected: list[Expectation]) -> list[Mistake]:
    """Within one label there is nothing to set classes side by side; labels that are numbers cut nothing."""
    by_label = [item for item in expected if item.slices and item.slices.by == LABEL]
    where = ("slices", "by")
    if TARGETS.get(str(_get(data, ("train", "loss")))) == "number":
        hint = "slice by a column that the loader gives"
        return [Mistake((*item.path, *where), "labels that are numbers cut no slices", hint) for item in by_label]
    hint = "slice accuracy by label, or this by a column that the loader gives"
    return [
        Mistake((*item.path, *where), f"{item.name} sets classes side by side: within one label it says nothing", hint)
        for item in by_label
        if item.metric.over_classes
    ]


def _multiples(data: dict[str, Any], expected: list[Expectation]) -> list[Mistake]:
    """``x NAME`` compares with another variant, or with the baseline."""
    return [
        Mistake(item.path, *_no_variant(item.threshold.relation.name, data))
        for item in expected
        if item.threshold.relation is not None
        and item.threshold.relation.kind == "x"
        and item.threshold.relation.name not in {*_made(data), "baseline"}
    ]


def _baselines(data: dict[str, Any], expected: list[Expectation]) -> list[Mistake]:
    """The baseline is what the registry holds: where it is, `promote` says."""
    if "promote" in data:
        return []
    hint = "add `promote: {model: NAME, to: ALIAS}`"
    return [
        Mistake(item.path, "there is no baseline without a `promote`", hint)
        for item in expected
        if item.threshold.relation is not None and item.threshold.relation.name == BASELINE
    ]


def _scenario(data: dict[str, Any], expected: list[Expectation]) -> list[Mistake]:
    """Only the server scenario has arrivals; offline, nothing waits for a single answer."""
    load = _mapping(data, "serve", "load")
    scenario = load.get("scenario", "server")
    mistakes = [
        Mistake(("serve", "load", name), f"the scenario {scenario} has no `{name}`", "leave it out", key=True)
        for name in ("arrivals", "rate")
        if name in load and scenario in ("single_stream", "multi_stream", "offline")
    ]
    if scenario == "offline":
        mistakes += [
            Mistake(item.path, f"{item.name} is not measured offline", "hold the throughput instead", key=True)
            for item in expected
            if item.section == "serve" and item.metric.name in ("latency", "error_rate")
        ]
    return mistakes


def _promotion(data: dict[str, Any]) -> list[Mistake]:
    if "promote" not in data:
        return []
    mistakes = []
    if not any(entries for *_, entries in written(data)):
        what = "nothing is expected of this model: no check would stand before promotion"
        mistakes.append(Mistake(("promote",), what, "add `expect` to a stage", key=True))
    served = _get(data, ("serve", "variants"))
    variants = served if isinstance(served, list) else [TRAINED] if "serve" in data else _made(data)
    choices = [*POLICIES, *(name for name in variants if isinstance(name, str))]
    choose = _get(data, ("promote", "choose"))
    if isinstance(choose, str) and choose not in choices:
        what = f"{choose!r} is neither a policy nor a variant that is {'served' if 'serve' in data else 'made'}"
        mistakes.append(Mistake(("promote", "choose"), what, did_you_mean(choose, choices)))
    return mistakes


def _waivers(data: dict[str, Any]) -> list[Mistake]:
    checks = {f"{section}.{name}" for section, _, _, entries in written(data) for name in entries}
    return [
        Mistake(("waive", name), f"there is no check {name!r} to waive", did_you_mean(name, checks), key=True)
        for name in _mapping(data, "waive")
        if name not in checks
    ]
