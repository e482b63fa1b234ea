"""``compress_properties[V]`` and ``serve_properties[V]``: a search for inputs that violate what must hold of V.

The first asks V's exported artifact in this process, the second its server.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from deploycheck.errors import DeploycheckError
from deploycheck.language.fields import Arguments, Section
from deploycheck.language.properties import check_name
from deploycheck.language.spec import Batching, Serve
from deploycheck.properties import NoAnswer
from deploycheck.ref import Ref, Source
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import BASELINE, Making, Metadata, StepKind, Subject, runtime_of
from deploycheck.steps.outputs import exported
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.properties import Domain, Predictor
    from deploycheck.properties.property import Inputs, Outputs
    from deploycheck.serving.runtimes import Engine

RESULTS, DATABASE = "properties.json", "properties"


class NamedProperty(Section):
    """A property, by the name of its check."""

    check: str
    name: str
    settings: Arguments


class PropertiesSettings(Section):
    """The properties of a section; ``key`` begins the names under which inputs are saved for the next run."""

    properties: tuple[NamedProperty, ...]
    key: str
    runtime: str
    batching: Batching


@dataclass(frozen=True, kw_only=True)
class PropertyResult:
    """What was found of one property.

    ``examples`` is how many different inputs were asked, ``saved`` how many of them earlier runs had saved under
    ``key``. ``violation`` and ``counterexample`` are empty where none violated it; ``replayed`` says that a saved one
    violated it again. ``inputs`` is the file that has the counterexample's arrays, if it has any. ``error`` says why
    the property couldn't be checked, if it couldn't.
    """

    key: str
    seed: int
    examples: int = 0
    saved: int = 0
    violation: str = ""
    counterexample: str = ""
    replayed: bool = False
    inputs: str = ""
    error: str = ""


def read_results(artifact: Artifact, variant: str | None) -> dict[str, PropertyResult]:
    """Return what was found of each property, by the name of its check."""
    del variant
    content = json.loads(artifact.file(RESULTS).read_bytes())
    results = {name: PropertyResult(**result) for name, result in content.items()}
    return {
        name: replace(result, inputs=str(artifact.file(result.inputs))) if result.inputs else result
        for name, result in results.items()
    }


Opening = Callable[["Making", "Domain"], AbstractContextManager["Predictor"]]
"""Opens what is asked: the exported model in this process, or a server of it."""


class PropertiesStep(StepKind):
    """The properties of a section. It is done in each run: the inputs that earlier runs saved are tried first."""

    isolated = True
    repeated = True
    settings_type = PropertiesSettings

    def __init__(self, section: Literal["compress", "serve"], opening: Opening) -> None:
        self.section, self.opening = section, opening
        self.name = f"{section}_properties"
        self.subjects: Mapping[str, Subject] = {self.name: Subject(read_results, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step for a variant; the baseline has none."""
        return Ref(self.name, (variant,)) if variant not in (None, BASELINE) else None

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and the exported model."""
        del spec, extensions
        return {"data": DATA, "model": exported(ref.of[0])}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> PropertiesSettings:
        """Return the section's properties."""
        del checks
        section = getattr(spec, self.section)
        return PropertiesSettings(
            properties=tuple(
                NamedProperty(check=check_name(name, settings), name=name, settings=settings)
                for name, settings in (section.properties if section else ())
            ),
            key=" ".join(filter(None, (spec.name, spec.label, str(ref)))),
            runtime=runtime_of(spec, ref.of[0]),
            batching=(spec.serve or Serve()).batching,
        )

    def sources(self, settings: PropertiesSettings) -> Iterable[Source]:
        """Yield the runtime, and the properties."""
        yield Source("runtimes", settings.runtime)
        yield from (Source("properties", each.name) for each in settings.properties)

    def make(self, making: Making) -> Metadata:
        """Search for a counterexample of each property, and write what was found."""
        settings: PropertiesSettings = making.settings
        domain, results = _domain_of(making), {}
        with self.opening(making, domain) as predictor:
            for each in settings.properties:
                making.progress(f"properties: {settings.key}, {each.check}")
                results[each.check] = asdict(_search(making, each, predictor, domain))
        (making.out / RESULTS).write_text(json.dumps(results, indent=1))
        return {"model": making.inputs["model"].digest}


@dataclass(frozen=True)
class InMemory:
    """The exported model in this process."""

    engine: Engine

    def predict(self, inputs: Inputs) -> Outputs:
        """Return the engine's outputs; raise ``NoAnswer`` where it raises anything."""
        try:
            return self.engine.run(inputs)
        except Exception as error:  # a runtime may raise anything
            first = next(iter(str(error).splitlines()), "")
            raise NoAnswer(f"the model raised {type(error).__name__}: {first}") from error


@contextmanager
def in_memory(making: Making, domain: Domain) -> Iterator[InMemory]:
    """Have the exported model in this process within the block."""
    from deploycheck.serving.batching import batch_sizes
    from deploycheck.serving.opening import open_for_serving

    engine = open_for_serving(making.inputs["model"].path, making.extensions.files, batch_sizes(domain.largest))
    engine.compile()
    yield InMemory(engine)


def served(making: Making, domain: Domain) -> AbstractContextManager[Predictor]:
    """Serve the exported model within the block: one server for all properties of a variant."""
    from deploycheck.properties.served import serving
    from deploycheck.serving.bench import model_name
    from deploycheck.serving.process import ServerProcess, batching_options

    del domain
    model, options = making.inputs["model"], batching_options(making.settings.batching)
    start = partial(ServerProcess, model.path, options, making.scratch / "server.log", making.extensions.files)
    return serving(start, model_name(model))


def _domain_of(making: Making) -> Domain:
    """Return the inputs of the model: those of its signature, in the ranges of all three splits."""
    from deploycheck.properties.domain import make_domain
    from deploycheck.serving.signature import SIGNATURE, read_signature
    from deploycheck.stages import data
    from deploycheck.stages.examples import SPLITS

    splits = data.read(making.inputs["data"].path).splits
    signature = read_signature(making.inputs["model"].file(SIGNATURE))
    inputs = {split: {each.name: splits[split].inputs[each.name] for each in signature.inputs} for split in SPLITS}
    test = inputs.pop("test")
    takes_missing = {each.name for each in signature.inputs if each.missing}
    return make_domain(test, inputs.values(), making.settings.batching.max_size, takes_missing)


def _search(making: Making, named: NamedProperty, predictor: Predictor, domain: Domain) -> PropertyResult:
    from hypothesis.configuration import set_hypothesis_home_dir

    from deploycheck.properties.property import describe_exception
    from deploycheck.properties.search import search
    from deploycheck.store.arrays import write_arrays

    key = f"{making.settings.key} {named.check}"
    folder = making.kept / DATABASE
    set_hypothesis_home_dir(folder)  # by default it writes into the user's project
    property = making.extensions.find_property(named.name)
    try:
        given = property.settings.model_validate(named.settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DeploycheckError(f"the settings of {named.name} are not valid: {place}: {first['msg']}") from error
    try:
        given = given.with_code(making.extensions.load_object)
        found = search(property, predictor, domain, given, saved=folder, key=key)
    except DeploycheckError as error:
        at = f"{error.where}: " if error.where else ""
        said = at + "; ".join(filter(None, (error.what, error.hint)))
        return PropertyResult(key=key, seed=given.seed, error=said)
    except Exception as error:  # the user's check may raise anything, which leaves the other properties as they are
        traceback.print_exc()
        return PropertyResult(key=key, seed=given.seed, error=f"the check raised {describe_exception(error)}")
    file = f"{len(list(making.out.iterdir()))}.safetensors"
    inputs = getattr(found.case, "inputs", None)
    if isinstance(inputs, Mapping):
        write_arrays(inputs, making.out / file)
    return PropertyResult(
        key=key,
        seed=given.seed,
        examples=found.examples,
        saved=found.saved,
        violation=found.violation,
        counterexample=found.counterexample,
        replayed=found.replayed,
        inputs=file if isinstance(inputs, Mapping) else "",
    )
