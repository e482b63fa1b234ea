"""What is installed: everything that a spec, or a command, can name.

One hook, ``pytest_deploycheck_extensions``, returns objects of the kinds below; the built-in ones are returned by
the same hook, in ``deploycheck/builtin.py``.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from deploycheck.checks import MetricFunction
from deploycheck.errors import DeploycheckError
from deploycheck.evidence.report import Report
from deploycheck.language import PropertyWord, SpecSection, Vocabulary
from deploycheck.language.errors import did_you_mean
from deploycheck.language.expect import SECTIONS
from deploycheck.language.names import STANDARD_HINT, is_standard_module, signature_of
from deploycheck.properties import Property
from deploycheck.ref import Source
from deploycheck.registry.scheme import RegistryScheme
from deploycheck.serving.runtimes import ReadsBack, Runtime
from deploycheck.serving.scenarios import Scenario
from deploycheck.stages.formats import WeightFormat
from deploycheck.stages.loaders import Loader
from deploycheck.stages.methods import Method
from deploycheck.stages.preprocess import Preprocessing
from deploycheck.stages.samplers import Sampler
from deploycheck.stages.tasks import Task

Extension = (
    MetricFunction
    | Loader
    | WeightFormat
    | Preprocessing
    | Method
    | Runtime
    | Task
    | Scenario
    | Sampler
    | Property
    | RegistryScheme
    | Report
    | SpecSection
)


@dataclass(frozen=True)
class Kind:
    """One kind of extension: its name in messages, its type, and the function that returns an extension's name."""

    word: str
    type: type[Any]
    name: Callable[[Any], str]


KINDS: Mapping[str, Kind] = {
    "metrics": Kind("metric", MetricFunction, lambda metric: metric.word.name),
    "loaders": Kind("loader", Loader, lambda loader: loader.name),
    "formats": Kind("format of weights", WeightFormat, lambda format: format.name),
    "preprocessing": Kind("preprocessing step", Preprocessing, lambda step: step.name),
    "methods": Kind("compression method", Method, lambda method: method.name),
    "runtimes": Kind("runtime", Runtime, lambda runtime: runtime.name),
    "tasks": Kind("task", Task, lambda task: task.word.name),
    "scenarios": Kind("scenario", Scenario, lambda scenario: scenario.name),
    "samplers": Kind("sampler", Sampler, lambda sampler: sampler.name),
    "properties": Kind("property", Property, lambda property: property.name),
    "registries": Kind("registry", RegistryScheme, lambda registry: registry.scheme),
    "reports": Kind("report", Report, lambda report: report.suffix),
    "sections": Kind("section", SpecSection, lambda section: section.name),
}


@dataclass(frozen=True, kw_only=True)
class Extensions:
    """Everything that is installed, by its name.

    ``files`` declare what isn't built in; ``origins`` says from which of them an installed name is.
    ``root`` is the project, where import paths are looked up first.
    """

    root: Path
    metrics: Mapping[str, MetricFunction]
    loaders: Mapping[str, Loader]
    formats: Mapping[str, WeightFormat]
    preprocessing: Mapping[str, Preprocessing]
    methods: Mapping[str, Method]
    runtimes: Mapping[str, Runtime]
    tasks: Mapping[str, Task]
    scenarios: Mapping[str, Scenario]
    samplers: Mapping[str, Sampler]
    properties: Mapping[str, Property]
    registries: Mapping[str, RegistryScheme]
    reports: Mapping[str, Report]
    sections: Mapping[str, SpecSection]
    files: tuple[Path, ...]
    origins: Mapping[Source, Path]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The names as the language needs them."""
        return Vocabulary(
            metrics={name: metric.word for name, metric in self.metrics.items()},
            loaders={name: signature_of(loader.load) for name, loader in self.loaders.items()},
            preprocessing={name: signature_of(step.fit, filled=1) for name, step in self.preprocessing.items()},
            formats=frozenset(self.formats),
            methods={name: method.options for name, method in self.methods.items()},
            runtimes=frozenset(self.runtimes),
            opaque={name: each.opaque for name, each in self.runtimes.items() if isinstance(each, ReadsBack)},
            registries={name: registry.check for name, registry in self.registries.items()},
            tasks={name: task.word for name, task in self.tasks.items()},
            scenarios={name: scenario.fields for name, scenario in self.scenarios.items()},
            samplers={name: sampler.word for name, sampler in self.samplers.items()},
            sections={name: section.type for name, section in self.sections.items()},
            properties={
                name: PropertyWord(
                    name=name, settings=each.settings, stages=each.stages, find_mistakes=each.find_mistakes
                )
                for name, each in self.properties.items()
            },
            unmeasured={name: scenario.unmeasured for name, scenario in self.scenarios.items()},
        )

    def loader(self, name: str) -> Callable[..., Any]:
        """Return the function of a loader: an installed one, or one by import path."""
        if name in self.loaders:
            return self.loaders[name].load
        found = self.load_object(name)
        function: Any = found.load if isinstance(found, Loader) else found
        if not callable(function):
            raise _unexpected(name, found, "a function, or a deploycheck.stages.loaders.Loader")
        return cast("Callable[..., Any]", function)

    def weight_reader(self, name: str) -> Callable[[Path], Mapping[str, Any]]:
        """Return the function that reads weights of a format: an installed one, or one by import path."""
        found = self.formats.get(name) or self.load_object(name)
        function: Any = found.read if isinstance(found, WeightFormat) else found
        if not callable(function):
            raise _unexpected(name, found, "a function, or a deploycheck.stages.formats.WeightFormat")
        return cast("Callable[[Path], Mapping[str, Any]]", function)

    def preprocessing_step(self, name: str) -> Preprocessing:
        """Return a preprocessing step: an installed one, or one by import path."""
        step = self.preprocessing.get(name) or self.load_object(name)
        if not isinstance(step, Preprocessing):
            raise _unexpected(name, step, "a deploycheck.stages.preprocess.Preprocessing")
        return step

    def method(self, name: str) -> Method:
        """Return a compression method: an installed one, or one by import path."""
        method = self.methods.get(name) or self.load_object(name)
        if not _is_object_of(method, Method):
            raise _unexpected(name, method, "a compression method (deploycheck.stages.methods.Method)")
        return method

    def find_property(self, name: str) -> Property:
        """Return a property: an installed one, or one by import path."""
        found = self.properties.get(name) or self.load_object(name)
        if not isinstance(found, Property):
            raise _unexpected(name, found, "a deploycheck.properties.Property")
        return found

    def load_object(self, path: str) -> Any:
        """Import ``package.module:name``, with the project on the import path, and return what it names."""
        return load_object(path, self.root)

    def installed(self, source: Source) -> Any | None:
        """Return the installed object that a source names, or None where it is an import path."""
        return getattr(self, source.kind).get(source.name) if source.kind in KINDS else None


def _is_object_of(found: Any, expected: type[Any]) -> bool:
    """Whether an extension is an object of a kind's type; a class that has all of a protocol's members isn't."""
    return isinstance(found, expected) and not isinstance(found, type)


def _unexpected(name: str, found: Any, expected: str) -> DeploycheckError:
    return DeploycheckError(f"{name} is {type(found).__name__}, expected {expected}")


def load_object(path: str, root: Path) -> Any:
    """Import ``package.module:name``, with ``root`` on the import path, and return what it names.

    Raises ``DeploycheckError`` where the import raises, whatever it raises, and for code of the standard library: a
    spec alone must not be able to run any command.
    """
    module_name, _, name = path.partition(":")
    refused = DeploycheckError(f"{path} is code of Python's standard library", hint=STANDARD_HINT)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            if is_standard_module(found):
                raise refused
            found = getattr(found, part)
    except DeploycheckError:
        raise
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise DeploycheckError(
            f"can't import {path}: {type(error).__name__}: {error}",
            hint=f"python -c 'import {module_name}' shows the whole traceback",
        ) from error
    return found


def collect(declared: Iterable[tuple[Path | None, Iterable[Any]]], root: Path) -> Extensions:
    """Return the extensions that were declared, each list with the file it is from (None for the built-in ones).

    Raises ``DeploycheckError`` where two have the same name, and for an object that isn't of any kind.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    origins: dict[Source, Path] = {}
    files: dict[Path, None] = {}
    for file, objects in declared:
        for each in objects:
            source = _named(each, file)
            known = found[source.kind].setdefault(source.name, each)
            if known is not each:
                what = f"two plugins define the {KINDS[source.kind].word} {source.name!r}"
                raise DeploycheckError(what, where=str(file or ""), hint="rename or remove one")
            if file is not None:
                origins[source] = file
                files[file] = None
    stages = {*SECTIONS, *found["sections"]}
    for name, metric in found["metrics"].items():
        if not metric.word.stages <= stages:
            what = f"the metric {name!r} is for {', '.join(sorted(metric.word.stages - stages))}"
            where = str(origins.get(Source("metrics", name), ""))
            raise DeploycheckError(what, where=where, hint=f"its stages are some of: {', '.join(sorted(stages))}")
    return Extensions(root=root, files=tuple(files), origins=origins, **found)


def _named(each: Any, file: Path | None) -> Source:
    for name, kind in KINDS.items():
        if _is_object_of(each, kind.type):
            return Source(name, kind.name(each))
    words = ", ".join(kind.word for kind in KINDS.values())
    what = f"pytest_deploycheck_extensions returned {each!r}, which is none of: {words}"
    raise DeploycheckError(what, where=str(file or ""), hint="see docs/extending.md for one example of each")


def unknown(kind: str, name: str, known: Iterable[str]) -> DeploycheckError:
    """Return the error for a name that isn't installed."""
    return DeploycheckError(f"unknown {KINDS[kind].word} {name!r}", hint=did_you_mean(name, known))
