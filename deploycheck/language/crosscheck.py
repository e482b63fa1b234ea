"""What can only be said of a spec as a whole: names that must exist, parts that need each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from deploycheck.language.errors import did_you_mean
from deploycheck.language.expect import Expectation, Mistake
from deploycheck.language.names import IMPORT_PATH, SEEDED, check_import, optax_functions, wrong_arguments
from deploycheck.language.source import Path_
from deploycheck.language.spec import Tree, Variant
from deploycheck.language.vocabulary import Vocabulary

TRAINED = "trained"
POLICIES = ("smallest", "fastest", "most_accurate")


def names(data: dict[str, Any], root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    """Check the names a spec takes from elsewhere: code, optimisers, loaders, steps, runtimes, registries.

    It works on plain data, so that these are found in a spec whose structure is wrong elsewhere.
    """
    return [
        *_code(data, ("model", "build"), root, SEEDED),
        *_loader(data, root, vocabulary),
        *_steps(data, root, vocabulary),
        *_optimizer(data),
        *_methods(data, root, vocabulary),
        *_known(data, ("serve", "runtime"), vocabulary.runtimes, "runtime"),
        *_registry(data, vocabulary),
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
    if isinstance(load, str) and ":" in load:
        if not IMPORT_PATH.fullmatch(load):
            return [Mistake(("data", "load"), f"{load!r} is no import path", "write it as package.module:name")]
        return _code(data, ("data", "load"), root)
    return _known(data, ("data", "load"), vocabulary.loaders, "loader")


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
        if name is None or name in vocabulary.compressors:
            continue
        path: Path_ = ("compress", "variants", variant, "method", name)
        if ":" in name:
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


def structure(tree: Tree, expected: list[Expectation]) -> list[Mistake]:
    """Check how the parts of a well-formed spec fit together."""
    return [
        *_needs(tree),
        *_split_sums(tree),
        *_variants(tree),
        *_served(tree),
        *_promotion(tree, expected),
        *_waivers(tree, expected),
        *_multiples(tree, expected),
    ]


def _needs(tree: Tree) -> list[Mistake]:
    """A stage needs those before it."""
    if tree.model is None:
        return []
    before = {"model": ("data", "train"), "compress": ("train",), "serve": ("train",), "optimize": ("train",)}
    return [
        Mistake((name,), f"`{name}` needs a section `{needed}`", f"add `{needed}:`", key=True)
        for name, every in before.items()
        for needed in every
        if getattr(tree, name) is not None and getattr(tree, needed) is None
    ]


def _split_sums(tree: Tree) -> list[Mistake]:
    if tree.data is None:
        return []
    total = tree.data.split.train + tree.data.split.validation + tree.data.split.test
    if abs(total - 1) < 1e-9:
        return []
    return [Mistake(("data", "split"), f"train, validation and test sum to {total:g}, expected 1")]


def _variants(tree: Tree) -> list[Mistake]:
    variants = tree.compress.variants if tree.compress else {}
    mistakes = []
    for name, variant in variants.items():
        path: Path_ = ("compress", "variants", name)
        if name == TRAINED:
            mistakes.append(
                Mistake(path, "'trained' is the model before compression; name the variant otherwise", key=True)
            )
        if len(variant.methods) != 1:
            found = ", ".join(variant.methods) or "none"
            hint = "build one variant `from` another to chain methods"
            mistakes.append(Mistake(path, f"a variant has one method, found {found}", hint, key=True))
        if variant.source and variant.source not in {*variants, TRAINED}:
            hint = did_you_mean(variant.source, [*variants, TRAINED])
            mistakes.append(Mistake((*path, "from"), f"there is no variant {variant.source!r}", hint))
        elif _circular(name, variants):
            mistakes.append(Mistake((*path, "from"), f"{name} is made from itself, directly or not"))
    return mistakes


def _circular(name: str, variants: dict[str, Variant]) -> bool:
    seen, at = {name}, variants[name].source
    while at in variants:
        if at in seen:
            return at == name
        seen.add(at)
        at = variants[at].source
    return False


def _served(tree: Tree) -> list[Mistake]:
    if tree.serve is None or tree.model is None:
        return []
    there = [TRAINED, *(tree.compress.variants if tree.compress else {})]
    mistakes = [
        Mistake(("serve", "variants", index), f"there is no variant {name!r}", did_you_mean(name, there))
        for index, name in enumerate(tree.serve.variants)
        if name not in there
    ]
    if len(set(tree.serve.variants)) < len(tree.serve.variants):
        mistakes.append(Mistake(("serve", "variants"), "a variant stands here twice"))
    return mistakes


def _promotion(tree: Tree, expected: list[Expectation]) -> list[Mistake]:
    if tree.promote is None or tree.model is None:
        return []
    mistakes = []
    if not expected:
        mistakes.append(
            Mistake(
                ("promote",),
                "nothing is expected of this model: no check would stand before promotion",
                "add `expect` to a stage",
                key=True,
            )
        )
    variants = tree.serve.variants if tree.serve else (TRAINED, *(tree.compress.variants if tree.compress else ()))
    choices = (*POLICIES, *variants)
    if tree.promote.choose not in choices:
        what = f"{tree.promote.choose!r} is neither a policy nor a variant that is {'served' if tree.serve else 'made'}"
        mistakes.append(Mistake(("promote", "choose"), what, did_you_mean(tree.promote.choose, choices)))
    return mistakes


def _waivers(tree: Tree, expected: list[Expectation]) -> list[Mistake]:
    checks = {f"{item.section}.{item.name}" for item in expected}
    return [
        Mistake(("waive", name), f"there is no check {name!r} to waive", did_you_mean(name, checks), key=True)
        for name in tree.waive
        if name not in checks
    ]


def _multiples(tree: Tree, expected: list[Expectation]) -> list[Mistake]:
    """A multiple is of the baseline, or of a variant that there is."""
    there = ["baseline", TRAINED, *(tree.compress.variants if tree.compress else ())]
    return [
        Mistake(
            item.path, f"there is no variant {relation.name!r} to be a multiple of", did_you_mean(relation.name, there)
        )
        for item in expected
        if tree.model and (relation := item.threshold.relation) and relation.kind == "x" and relation.name not in there
    ]
