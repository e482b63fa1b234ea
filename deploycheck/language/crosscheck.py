"""What can only be said of several sections together: parts that need each other, names that one takes from another.

It works on plain data, so that these mistakes are found in a spec whose structure is wrong elsewhere.
"""

from __future__ import annotations

import difflib
from datetime import date, timedelta
from typing import Any

from pydantic import ValidationError

from deploycheck.language.errors import Mistake, did_you_mean
from deploycheck.language.expect import Expectation, find_expects
from deploycheck.language.properties import SECTIONS, check_name, find_properties
from deploycheck.language.references import get, has_weights, mapping
from deploycheck.language.spec import LABEL, Input, Load, Train
from deploycheck.language.variants import BASELINE, RESERVED, TRAINED
from deploycheck.language.vocabulary import PropertyWord, TaskWord, Vocabulary

LONGEST_WAIVER = timedelta(days=366)
MOST_ACCURATE = "most_accurate"
POLICIES = ("smallest", "fastest", MOST_ACCURATE)


def check_own_metrics(data: dict[str, Any], installed: Vocabulary) -> list[Mistake]:
    """Check that the metrics that a spec defines have names of their own."""
    return [
        Mistake(("metrics", name), f"{name!r} is a metric already", "choose another name", key=True)
        for name in mapping(data, "metrics")
        if installed.find(name)
    ]


def check_standard(data: dict[str, Any]) -> list[Mistake]:
    """Check that a standard (a spec without a model) has no part that only the specs that extend it can have."""
    hint = "leave it to the specs that extend this standard"
    return [
        Mistake((name,), f"a standard can't have `{name}`", hint, key=True)
        for name in ("promote", "matrix", "waive")
        if name in data
    ]


def check_parts(
    data: dict[str, Any], expected: list[Expectation], own: dict[str, Any], vocabulary: Vocabulary, today: date
) -> list[Mistake]:
    """Check how the parts of a spec fit together; a standard is checked where a spec has completed it.

    ``own`` is what the spec's own file says: a standard may expect something of variants where a spec has none.
    ``today`` is the day from which the terms of waivers are counted.
    """
    if "model" not in data:
        return []
    return [
        *_check_needs(data),
        *_check_training(data),
        *(_check_variants(data) if "compress" in own else ()),
        *_check_searches(data),
        *_check_served(data),
        *_check_task(data, expected, vocabulary),
        *_check_label_slices(data, expected, vocabulary),
        *_check_relations(data, expected),
        *_check_unmeasured(data, expected, vocabulary),
        *_check_promotion(data, vocabulary),
        *_check_waivers(data, vocabulary),
        *_check_terms(data, today),
        *check_properties(data, vocabulary),
    ]


def _check_needs(data: dict[str, Any]) -> list[Mistake]:
    """A stage needs the stages before it."""
    needs = {"model": ("data", "train"), "optimize": ("train",), "compress": ("train",), "serve": ("train",)}
    given = data.keys() | ({"train"} if has_weights(data) else set())
    return [
        Mistake((name,), f"`{name}` needs a section `{needed}`", f"add `{needed}:`", key=True)
        for name, before in needs.items()
        for needed in before
        if name in data and needed not in (data if name == "optimize" else given)
    ]


TRAINING = ("optimizer", "epochs", "batch_size")
"""What a section `train` has all of, or none of for a model whose weights are taken as they are."""


def _check_training(data: dict[str, Any]) -> list[Mistake]:
    """A model without weights is trained; one that is trained has all that it takes, and data to be trained on."""
    train = get(data, ("train",))
    if not isinstance(train, dict):
        return []
    mistyped = [key for key in train if key not in Train.model_fields]
    missing = [name for name in TRAINING if name not in train and not difflib.get_close_matches(name, mistyped)]
    if len(missing) < len(TRAINING) or not has_weights(data):
        mistakes = [Mistake(("train",), f"`train` has no {name!r}", f"add `{name}: ...`", key=True) for name in missing]
        shares = mapping(data, "data", "split")
        empty = [name for name in ("train", "validation") if shares.get(name) == 0]
        hint = "give it a share of the examples"
        return mistakes + [
            Mistake(("data", "split", name), f"a training needs examples for {name}", hint) for name in empty
        ]
    hint = f"add {', '.join(f'`{name}`' for name in TRAINING)} to train the model further, or leave it out"
    useless = [name for name in train if name in Train.model_fields and name not in ("loss", "expect")]
    return [
        Mistake(("train", name), f"nothing is trained, so `{name}` has no effect", hint, key=True) for name in useless
    ]


def _check_variants(data: dict[str, Any]) -> list[Mistake]:
    if not isinstance(data["compress"], dict) or data["compress"].get("variants", {}) != {}:
        return []
    return [Mistake(("compress",), "`compress` has no 'variants'", "add a variant", key=True)]


def _check_searches(data: dict[str, Any]) -> list[Mistake]:
    """What a search tries is measured on the validation split."""
    found = [
        name for name in mapping(data, "compress", "variants") if get(data, ("compress", "variants", name, "search"))
    ]
    if not found or get(data, ("data", "split", "validation")) != 0:
        return []
    what = f"the search for {found[0]} needs examples for validation"
    return [Mistake(("data", "split", "validation"), what, "give it a share of the examples")]


def _variants(data: dict[str, Any]) -> list[str]:
    """Return the names of all variants, the trained model first."""
    return [TRAINED, *(name for name in mapping(data, "compress", "variants") if name not in RESERVED)]


def _check_served(data: dict[str, Any]) -> list[Mistake]:
    served = get(data, ("serve", "variants"))
    made = _variants(data)
    return [
        Mistake(("serve", "variants", index), f"there is no variant {name!r}", did_you_mean(name, made))
        for index, name in enumerate(served if isinstance(served, list) else ())
        if isinstance(name, str) and name not in made
    ]


def _loss(data: dict[str, Any]) -> Any:
    return mapping(data, "train").get("loss", Train.model_fields["loss"].default)


def _check_task(data: dict[str, Any], expected: list[Expectation], vocabulary: Vocabulary) -> list[Mistake]:
    """A metric of one task can't measure a model of another."""
    loss = _loss(data)
    task = vocabulary.task_of(loss)
    if task is None:
        return []  # an unknown loss, which its section reports
    mistakes = [
        Mistake(
            item.path,
            f"{item.name} measures {_labels(item, vocabulary)}, and with `loss: {loss}` the model gives {task.labels}",
            _other_metrics(item, task, vocabulary),
            key=True,
        )
        for item in expected
        if item.metric.task not in ("", task.name)
    ]
    if not task.most_accurate and get(data, ("promote", "choose")) == MOST_ACCURATE:
        what = f"{MOST_ACCURATE} can't compare models trained with `loss: {loss}`"
        others = ", or ".join(policy for policy in POLICIES if policy != MOST_ACCURATE)
        mistakes.append(Mistake(("promote", "choose"), what, f"choose {others}"))
    return mistakes


def _labels(item: Expectation, vocabulary: Vocabulary) -> str:
    task = vocabulary.tasks.get(item.metric.task)
    return task.labels if task else item.metric.task


def _other_metrics(item: Expectation, task: TaskWord, vocabulary: Vocabulary) -> str:
    """Return a hint with the metrics that measure the model's task, or with the losses that the metric needs."""
    metrics = vocabulary.metrics.items()
    names = sorted(name for name, it in metrics if it.task == task.name and item.section in it.stages)
    asked = vocabulary.tasks.get(item.metric.task)
    losses = " or ".join(f"`loss: {loss}`" for loss in asked.losses) if asked else ""
    measure, train = f"measure {', '.join(names)}" if names else "", f"train with {losses}" if losses else ""
    return ", or ".join(part for part in (measure, train) if part)


def _check_label_slices(data: dict[str, Any], expected: list[Expectation], vocabulary: Vocabulary) -> list[Mistake]:
    """Slices by label need labels that group examples, and a metric that has a value within one label."""
    task = vocabulary.task_of(_loss(data))
    by_label = [item for item in expected if item.slices and item.slices.by == LABEL]
    if task and not task.label_slices:
        what, hint = f"labels that are {task.labels} define no slices", "slice by a column that the loader gives"
        return [Mistake((*item.path, "slices", "by"), what, hint) for item in by_label]
    hint = "slice it by a column that the loader gives, or slice another metric by label"
    return [
        Mistake((*item.path, "slices", "by"), f"{item.name} compares classes, so it can't be sliced by `label`", hint)
        for item in by_label
        if item.metric.over_classes
    ]


def _check_relations(data: dict[str, Any], expected: list[Expectation]) -> list[Mistake]:
    """``x NAME`` names a variant or the baseline; the baseline is in the registry that ``promote`` names."""
    made = _variants(data)
    mistakes = []
    for item in expected:
        relation = item.threshold.relation
        if relation and relation.kind == "x" and relation.name not in (*made, BASELINE):
            what = f"there is no variant {relation.name!r}"
            mistakes.append(Mistake(item.path, what, did_you_mean(relation.name, made)))
        if relation and relation.name == BASELINE and "promote" not in data:
            hint = "add `promote: {model: NAME, to: ALIAS}`"
            mistakes.append(Mistake(item.path, "there is no baseline without a section `promote`", hint))
    return mistakes


def _check_unmeasured(data: dict[str, Any], expected: list[Expectation], vocabulary: Vocabulary) -> list[Mistake]:
    """Some metrics can't be measured in every load scenario."""
    scenario = mapping(data, "serve", "load").get("scenario", Load.model_fields["scenario"].default)
    unmeasured = vocabulary.unmeasured.get(scenario, frozenset()) if isinstance(scenario, str) else frozenset()
    hint = "expect another metric, or choose another scenario"
    return [
        Mistake(item.path, f"{item.name} can't be measured in the scenario {scenario}", hint, key=True)
        for item in expected
        if item.section == "serve" and item.metric.name in unmeasured
    ]


def _check_promotion(data: dict[str, Any], vocabulary: Vocabulary) -> list[Mistake]:
    """Something must be expected of what is promoted, and what is chosen must exist."""
    if "promote" not in data:
        return []
    mistakes = []
    if not any(entries for *_, entries in find_expects(data, vocabulary)) and not any(find_properties(data)):
        what = "nothing is expected of this model, so it would be promoted without a check"
        mistakes.append(Mistake(("promote",), what, "add `expect` to a section", key=True))
    served = get(data, ("serve", "variants"))
    variants = served if isinstance(served, list) else [TRAINED] if "serve" in data else _variants(data)
    choices = [*POLICIES, *(name for name in variants if isinstance(name, str))]
    choose = get(data, ("promote", "choose"))
    if isinstance(choose, str) and choose not in choices:
        what = f"{choose!r} is neither a policy nor a variant that is {'served' if 'serve' in data else 'made'}"
        mistakes.append(Mistake(("promote", "choose"), what, did_you_mean(choose, choices)))
    return mistakes


def _check_terms(data: dict[str, Any], today: date) -> list[Mistake]:
    """A waiver is for now, so it ends within a year."""
    last = today + LONGEST_WAIVER
    return [
        Mistake(
            ("waive", name, "until"),
            f"a waiver holds for at most a year, and this one ends {(until - today).days:,} days from today",
            f"write a day until {last.isoformat()}, and renew it then if it is still needed",
        )
        for name in mapping(data, "waive")
        if (until := _day(get(data, ("waive", name, "until")))) is not None and until > last
    ]


def _day(written: Any) -> date | None:
    try:
        return date.fromisoformat(written)
    except (TypeError, ValueError):
        return None  # a mistake that its section reports


def _check_waivers(data: dict[str, Any], vocabulary: Vocabulary) -> list[Mistake]:
    checks = {f"{section}.{name}" for section, _, _, entries in find_expects(data, vocabulary) for name in entries}
    checks |= {f"{section}.{check_name(name, settings)}" for section, _, name, settings in find_properties(data)}
    return [
        Mistake(("waive", name), f"there is no check {name!r} to waive", did_you_mean(name, checks), key=True)
        for name in mapping(data, "waive")
        if name not in checks
    ]


def check_properties(data: dict[str, Any], vocabulary: Vocabulary) -> list[Mistake]:
    """Check that each property has a check of its own name, a section that can have it, and settings that fit inputs.

    In a standard, which may have no inputs, the settings are checked where a spec has completed it.
    """
    hint = "add a property, or leave `properties` out"
    mistakes = [
        Mistake((section, "properties"), "`properties` is empty: it would pass without a check", hint)
        for section in SECTIONS
        if get(data, (section, "properties")) == []
    ]
    seen: set[tuple[str, str]] = set()
    for section, path, name, settings in find_properties(data):
        shown, word = check_name(name, settings), vocabulary.properties.get(name)
        if (section, shown) in seen:
            hint = f"give each a label of its own: {{{name}: {{label: NAME}}}}"
            mistakes.append(Mistake(path, f"the property {shown} is listed twice", hint))
        seen.add((section, shown))
        if vocabulary.find(shown):
            hint = f"add a label: {{{name}: {{label: NAME}}}}"
            mistakes.append(Mistake(path, f"{shown!r} is a metric already", hint))
        if word and section not in word.stages:
            stages = " or ".join(f"{stage}.properties" for stage in sorted(word.stages))
            mistakes.append(Mistake(path, f"{name} can't be checked in {section}", f"move it to {stages}"))
        if word:
            for found in _misfits(word, settings, mapping(data, "model", "input"), vocabulary):
                mistakes.append(Mistake((*path, name, *found.path), found.what, found.hint, key=found.key))
    return mistakes


def _misfits(
    word: PropertyWord, settings: dict[str, Any], inputs: dict[str, Any], vocabulary: Vocabulary
) -> list[Mistake]:
    """Return the mistakes of valid settings for a model with these inputs, their paths within the settings."""
    try:
        given = word.settings.model_validate(settings, context=vocabulary)
        shapes = {name: Input.model_validate(part) for name, part in inputs.items()}
    except ValidationError:
        return []  # which is reported elsewhere
    return list(word.find_mistakes(given, shapes)) if shapes else []
