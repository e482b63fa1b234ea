"""The recipes of a search: how a model is made by one, and how it is measured on the validation split.

It is measured as a variant is: what is exported is loaded and answers, and its files are counted. So its size and its
answers are those of the artifact that would be shipped.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deploycheck.checks import MetricFunction
from deploycheck.checks.own import own_metric
from deploycheck.checks.relative import in_unit, relative
from deploycheck.checks.size import bytes_of
from deploycheck.errors import DeploycheckError
from deploycheck.evidence.show import with_interval
from deploycheck.language.expect import read_threshold
from deploycheck.language.methods import Method
from deploycheck.language.recipes import Recipe
from deploycheck.language.spec import OwnMetric
from deploycheck.language.threshold import Threshold
from deploycheck.lazy import np
from deploycheck.stages.methods import Describes, Refines, is_given_trainer
from deploycheck.stages.recipe_search import MeasuredRecipe, Reached
from deploycheck.steps.kind import TRAINED, Making
from deploycheck.steps.model import export
from deploycheck.steps.outputs import OUTPUTS
from deploycheck.steps.variant import compress, trainer_of
from deploycheck.store import Building, Store, fingerprint, write_manifest
from deploycheck.verdict import Measurement, Outcome, decide

if TYPE_CHECKING:
    from deploycheck.language.fields import Section
    from deploycheck.stages.data import Dataset
    from deploycheck.steps.trained import Trained
    from deploycheck.steps.variant_search import VariantSearchSettings

VALIDATION = "validation"


def role_of(variant: str) -> str:
    """Return the role that a variant has among the inputs of a search."""
    return f"variant {variant}"


class Workshop:
    """Makes models by recipes. What a method has trained is kept in ``making.scratch``, so it is trained once."""

    def __init__(self, making: Making, dataset: Dataset) -> None:
        self.making = making
        self.settings: VariantSearchSettings = making.settings
        self.dataset = dataset
        self.store = Store(making.scratch / "made")
        self._sources: dict[str, Trained] = {}

    def source(self, variant: str) -> Trained:
        """Return a variant that the search is given."""
        from deploycheck.steps import trained

        if variant not in self._sources:
            self._sources[variant] = trained.read(self.making.inputs[role_of(variant)], self.making.extensions)
        return self._sources[variant]

    def made(self, recipe: Recipe) -> Trained:
        """Return the model that a recipe makes."""
        start = recipe.start or self.settings.source
        model = self.source(start)
        for number, method in enumerate(recipe.methods, 1):
            key = fingerprint([self.making.inputs[role_of(start)].digest, recipe.methods[:number]])
            model = self._compressed(model, method, key)
        return model

    def _compressed(self, source: Trained, written: Method, key: str) -> Trained:
        from deploycheck.steps import trained

        method, options = self._options(written)
        whole = (written[0], options.model_dump(mode="json", by_alias=True, exclude_none=True))

        def build(building: Building) -> Mapping[str, Any]:
            trainer = trainer_of(source, self.dataset, self.settings.train, self.making, building.scratch)
            trained.write(compress(source, whole, method, options, trainer), building.out)
            return {}

        if is_given_trainer(method, options):
            artifact, _ = self.store.get_or_build("variant", key, build)
            return trained.read(artifact, self.making.extensions)
        return compress(source, whole, method, options, None)

    def refined(self, recipe: Recipe) -> list[Recipe]:
        """Return recipes whose last method loses less and less; none where it can't be refined."""
        before, last = self._last(recipe)
        if last is None:
            return []
        method, options = self._options(last)
        if not isinstance(method, Refines):
            return []
        self.making.progress(f"search {self.settings.variant}: which weights need more bits")
        source = self.made(before)
        trainer = trainer_of(source, self.dataset, self.settings.train, self.making, self.making.scratch / "refine")
        finer = [(last[0], _brief(each)) for each in method.refine(source.model, options, trainer)]
        return [before.model_copy(update={"methods": (*before.methods, each)}) for each in finer]

    def described(self, recipe: Recipe, result: Trained) -> list[str]:
        """Return what the last method of a recipe says of what it made; nothing where it says nothing."""
        before, last = self._last(recipe)
        method = self._options(last)[0] if last else None
        said = method.describe(self.made(before).model, result.model) if isinstance(method, Describes) else ""
        return [said] if said else []

    def _last(self, recipe: Recipe) -> tuple[Recipe, Method | None]:
        """Return a recipe without its last method, and that method; None for a variant that is not taken apart."""
        whole = self.whole(recipe)
        if not whole.methods:
            return whole, None
        return whole.model_copy(update={"methods": whole.methods[:-1]}), whole.methods[-1]

    def whole(self, recipe: Recipe) -> Recipe:
        """Return a recipe that is another variant as one method more on what that variant is made from."""
        if recipe.methods or recipe.start not in self.settings.before:
            return recipe
        last = self.source(recipe.start).config.methods[-1]
        before = self.settings.before[recipe.start]
        return self.brief(Recipe(start=None if before == self.settings.source else before, methods=(last,)))

    def brief(self, recipe: Recipe) -> Recipe:
        """Return a recipe without the options that have their default."""
        methods = tuple((written[0], _brief(self._options(written)[1])) for written in recipe.methods)
        return recipe.model_copy(update={"methods": methods})

    def _options(self, written: Method) -> tuple[Any, Section]:
        """Return a method, and its options."""
        name, options = written
        method = self.making.extensions.method(name)
        return method, method.options.model_validate(options)


def _brief(options: Section) -> dict[str, Any]:
    return options.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


@dataclass(frozen=True)
class Goal:
    """A threshold that a model must meet, and the metric that it is about."""

    name: str
    metric: MetricFunction
    threshold: Threshold
    percentile: float | None

    def measure(self, given: Mapping[str, Any]) -> Measurement:
        """Return what the metric measures of its subjects."""
        missing = self.metric.subjects - given.keys()
        if missing:
            what = f"`within`: {self.name} is measured of {', '.join(sorted(missing))}, which a search doesn't have"
            raise DeploycheckError(what, hint="use a metric of labels, outputs or the artifact")
        family = {} if self.percentile is None else {"percentile": self.percentile}
        return self.metric.measure(**{name: given[name] for name in self.metric.subjects}, **family)

    def reached(self, given: Mapping[str, Any], reference: Mapping[str, Any]) -> Reached:
        """Return what a model reaches; ``given`` is what is known of it, ``reference`` of the trained model.

        The value itself must meet the threshold, unless that has a confidence. Raises ``DeploycheckError`` for a
        threshold that decides nothing on these examples.
        """
        measurement = self.measure(given)
        if self.threshold.relation and not any(name.startswith("reference_") for name in self.metric.subjects):
            measurement = relative(measurement, self.measure(reference), TRAINED)
        measurement = in_unit(measurement, self.threshold, self.name)
        threshold = replace(self.threshold, point=self.threshold.confidence is None)
        verdict = decide(measurement, threshold, self.threshold.confidence or 0.5)
        if verdict.outcome is Outcome.ERROR and not math.isnan(verdict.value):
            raise DeploycheckError(f"`within`: {self.name} on the validation split: {verdict.reason}")
        shown = with_interval(verdict.value, verdict.low, verdict.high, threshold.dimension)
        return Reached(shown, verdict.outcome is Outcome.PASS, _margin(verdict.value, threshold))


def _margin(value: float, threshold: Threshold) -> float:
    """Return by how much a value is better than the limit, as a share of the limit; of nan, infinitely worse."""
    if math.isnan(value):
        return -math.inf
    over = (value - threshold.value) / (abs(threshold.value) or 1.0)
    return {">": over, "<": -over}.get(threshold.comparator[0], -abs(over))


class Bench:
    """Measures models on the validation split, beside the trained model."""

    def __init__(self, making: Making, labels: np.ndarray, trained: Trained) -> None:
        self.making = making
        self.settings: VariantSearchSettings = making.settings
        self.labels = labels
        if not len(labels):
            what = "a search measures its recipes on the validation split, which is empty"
            raise DeploycheckError(what, hint="give `data.split.validation` a share of the examples")
        self.goals = tuple(self._goals())
        self._trained = trained

    def _goals(self) -> Iterator[Goal]:
        extensions = self.making.extensions
        own = {name: OwnMetric.model_validate(written) for name, written in self.settings.metrics.items()}
        vocabulary = extensions.vocabulary.extended({name: metric.word(name) for name, metric in own.items()})
        for name, text in self.settings.within.items():
            found = vocabulary.find(name)
            if found is None:
                raise KeyError(name)
            word, percentile = found
            metric = (
                own_metric(name, own[name], extensions.load_object(own[name].use))
                if name in own
                else extensions.metrics[word.name]
            )
            yield Goal(name, metric, read_threshold(text, word), percentile)

    def measure(self, recipe: Recipe, model: Trained) -> MeasuredRecipe:
        """Export a model, and return its bytes and what it reaches of each threshold."""
        given = self._known_of(model, "measured")
        beside = {f"reference_{name}": self.reference[name] for name in ("outputs", "artifact")}
        reached = {goal.name: goal.reached({**given, **beside}, {**self.reference, **beside}) for goal in self.goals}
        return MeasuredRecipe(recipe=recipe, size=bytes_of(given["artifact"]), reached=reached)

    @cached_property
    def reference(self) -> Mapping[str, Any]:
        """What metrics may read of the trained model."""
        return self._known_of(self._trained, "reference")

    def _known_of(self, model: Trained, name: str) -> Mapping[str, Any]:
        """Return what metrics may read of a model, whose export stays in a folder until the next of that name."""
        from safetensors.numpy import load_file

        from deploycheck.serving.opening import open_compiled
        from deploycheck.serving.predict import BATCH, predict

        folder, answers = self.making.scratch / name, self.making.scratch / f"{name}-{OUTPUTS}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        export(model, self.settings.runtime, self.settings.model, folder, self.making.extensions)
        artifact = write_manifest(folder, "model", fingerprint(name), {})
        engine = open_compiled(folder, self.making.extensions.files, (BATCH,))
        predict(engine, self.making.inputs["data"].file(f"{VALIDATION}.safetensors"), answers)
        outputs = load_file(answers)[engine.signature.outputs[0].name]
        return {"labels": self.labels, "outputs": outputs, "artifact": artifact}
