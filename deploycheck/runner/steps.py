"""What each kind of step does, and what it is decided by.

``make_KIND`` writes a step's files from the spec and the artifacts it needs; ``decided_by_KIND`` returns
everything else that its result depends on, which becomes its address in the store.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Serve
from deploycheck.plan import Check, Plan, Step, method_chain
from deploycheck.runner.code import code_fingerprint, load_object, own_fingerprint, versions
from deploycheck.runner.extensions import Extensions
from deploycheck.runner.goals import Goal
from deploycheck.runner.machine import Machine
from deploycheck.store import Artifact, Building
from deploycheck.store.arrays import write_arrays
from deploycheck.verdict import Measurement, ratio_of

if TYPE_CHECKING:
    from deploycheck.checks import MetricFunction
    from deploycheck.runner.measure import Bench
    from deploycheck.serving.report import LoadReport
    from deploycheck.stages.model import Method, Model
    from deploycheck.stages.preprocess import Step as Preprocessing

PREDICT_BATCH = 64
"""Examples a batch when the model in memory answers a split."""

PREDICT_TIMEOUT_S = 1800
ANSWERS = "outputs.safetensors"
OUTPUTS = {"class": "logits", "number": "prediction"}
"""What an exported model's output is called, by what it answers with."""


@dataclass(frozen=True)
class Work:
    """One step to be done: what it is, what it is made from, and what it may use."""

    plan: Plan
    step: Step
    inputs: Mapping[str, Artifact]
    root: Path
    extensions: Extensions
    report: Callable[[str], None]
    machine: Machine

    @property
    def where(self) -> str:
        """The step as an error names it."""
        return f"{self.plan.id}: {self.step.name}"

    @property
    def serve(self) -> Serve:
        """The serve section, without which there is no step that asks for it."""
        if self.plan.spec.serve is None:
            raise DeploycheckError("the spec has no `serve`", where=self.where)
        return self.plan.spec.serve

    def input(self, kind: str) -> Artifact:
        """Return the artifact of the one step of this kind that this step needs."""
        return next(artifact for name, artifact in self.inputs.items() if name.partition("[")[0] == kind)


Made = Mapping[str, Any]


def make_data(work: Work, building: Building) -> Made:
    """Load the examples, split them, fit the preprocessing."""
    from deploycheck.stages import data, examples, preprocess

    section, inputs = work.plan.spec.data, work.plan.spec.model.input
    work.report("data: loading")
    load = load_object(_loader_path(work), work.root, work.where)
    loaded = examples.as_examples(
        load(**_loader_arguments(work)), tuple(inputs), work.plan.spec.train.target, work.where
    )
    for name, declared in inputs.items():
        array = loaded.inputs[name]
        if (array.shape[1:], array.dtype.name) != (declared.shape, declared.dtype):
            raise DeploycheckError(
                f"the loader gives {name!r} as {array.dtype.name} {list(array.shape[1:])}, the model declares "
                f"{declared.dtype} {list(declared.shape)}",
                where=work.where,
                hint="convert it in the loader, or declare what it gives",
            )
    fractions = {name: getattr(section.split, name) for name in examples.SPLITS}
    splits = examples.split(loaded, fractions, seed=section.split.seed, stratify=section.split.stratify)
    empty = [name for name, part in splits.items() if not len(part)]
    if empty:
        raise DeploycheckError(f"no examples are left for {', '.join(empty)}, of {len(loaded)}", where=work.where)
    fitted = preprocess.fit_all(_preprocessing(work), splits["train"].inputs, work.where)
    data.write(data.Dataset(splits, fitted), building.out)
    return {"examples": {name: len(part) for name, part in splits.items()}}


def decided_by_data(work: Work) -> Made:
    """The data section, the loader's and the steps' code, and the file that is read."""
    section = work.plan.spec.data
    path = _loader_path(work)
    file = _loader_arguments(work).get("path")
    return {
        "data": section.model_dump(exclude={"expect"}),
        "input": {name: declared.model_dump() for name, declared in work.plan.spec.model.input.items()},
        "target": work.plan.spec.train.target,
        "code": code_fingerprint(path, work.root) | _preprocessing_code(work),
        "file": _content_digest(file, work.where) if isinstance(file, Path) else None,
        "own": own_fingerprint("stages.data", "stages.examples", "store.arrays"),
        "versions": versions("numpy", "safetensors"),
    }


def make_training(work: Work, building: Building) -> Made:
    """Train every seed; keep the weights of the one that is best on validation."""
    import jax.numpy as jnp
    import numpy as np

    from deploycheck.stages import data, preprocess, train, training
    from deploycheck.stages.examples import Examples
    from deploycheck.stages.model import Model, to_network

    dataset = data.read(work.input("data").path)
    prepare = preprocess.apply_all(_preprocessing(work))
    prepared = {
        name: Examples({key: np.asarray(a) for key, a in prepare(dataset.fitted, part.inputs).items()}, part.labels)
        for name, part in dataset.splits.items()
        if name != "test"
    }
    example = {name: array[:1] for name, array in prepared["train"].inputs.items()}
    build = functools.partial(_build, work, example)
    section = work.plan.spec.train
    runs = train.train(build, prepared, _recipe(section), section.seeds, building.scratch, work.report, work.where)
    best, shape = train.best_run(runs), build(section.seeds[0])
    trained = Model(best.params, best.state, shape.apply, shape.train)
    fitted = {name: jnp.asarray(array) for name, array in dataset.fitted.items()}
    weights = to_network(trained, prepare, fitted).weights
    write_arrays(weights, building.out / "weights.safetensors")
    report = train.report_of(runs)
    training.write(report, building.out)
    return {"deployed": report.spread}


def decided_by_training(work: Work) -> Made:
    """The train and model sections, the model's code, the libraries and the device."""
    return {
        "train": work.plan.spec.train.model_dump(exclude={"expect"}),
        "model": work.plan.spec.model.model_dump(),
        "code": code_fingerprint(work.plan.spec.model.build, work.root) | _preprocessing_code(work),
        "own": own_fingerprint("stages.train", "stages.model", "store.arrays"),
        **_platform(),
    }


def make_model(work: Work, building: Building) -> Made:
    """Compress the variant it is made from, if it is, and export it."""
    import numpy as np
    from safetensors.numpy import load_file

    from deploycheck.stages import export
    from deploycheck.stages.model import Network

    (source,) = work.inputs.values()
    chain = method_chain(work.plan.spec, work.step.variant or "")
    network = Network(load_file(source.file("weights.safetensors")), _apply(work, chain[:-1]))
    inputs = {name: (part.shape, part.dtype) for name, part in work.plan.spec.model.input.items()}
    if chain:
        name, options = chain[-1]
        example = {key: np.zeros((2, *shape), dtype) for key, (shape, dtype) in inputs.items()}
        work.report(f"compress: {work.step.variant} by {name}")
        network = _method(work, name).compress(network, options, example, work.where)
    output = OUTPUTS[work.plan.spec.train.target]
    export.write(network, inputs, output, work.plan.spec.name, building.out, work.where)
    today = datetime.now(UTC).date()
    return {
        "exported": today.isoformat(),
        "loadable_until": export.loadable_until(today).isoformat(),
        "device": _platform()["device"],
    }


def decided_by_model(work: Work) -> Made:
    """The methods, the model's code, the libraries and the device; the weights are what it is made from."""
    chain = method_chain(work.plan.spec, work.step.variant or "")
    methods = [work.extensions.compressors.get(name, name) for name, _ in chain]
    code = code_fingerprint(work.plan.spec.model.build, work.root) | _preprocessing_code(work)
    for method in methods:
        code |= code_fingerprint(method, work.root)
    return {
        "name": work.plan.spec.name,
        "output": OUTPUTS[work.plan.spec.train.target],
        "model": work.plan.spec.model.model_dump(),
        "methods": [[name, dict(options)] for name, options in chain],
        "preprocess": work.plan.spec.data.model_dump(include={"preprocess"}),
        "code": code,
        "own": own_fingerprint("stages.model", "stages.export", "stages.quantize", "stages.preprocess", "store.arrays"),
        **_platform(),
    }


def make_outputs(work: Work, building: Building) -> Made:
    """Have the exported artifact answer the test split, in a process of its own."""
    from safetensors.numpy import load_file

    artifact, examples = work.input("model"), work.input("data").file("test.safetensors")
    work.report(f"evaluate: {work.step.variant}")
    answers = building.scratch / "answers.safetensors"
    command = [
        sys.executable,
        "-m",
        "deploycheck.serving.predict",
        str(artifact.path),
        str(examples),
        str(answers),
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=PREDICT_TIMEOUT_S, check=False)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"it ended with exit code {child.returncode}"])[-1]
        raise DeploycheckError(f"the exported artifact can't answer the test split: {last}", where=work.where)
    (outputs,) = load_file(answers).values()
    write_arrays({"outputs": outputs}, building.out / ANSWERS)
    return {"model": artifact.digest}


def decided_by_outputs(_: Work) -> Made:
    """The loader of artifacts; what they answer on is what it is made from."""
    return {"own": own_fingerprint("serving.predict", "serving.runtime", "store.arrays"), **_platform()}


def make_memory(work: Work, building: Building) -> Made:
    """Have the model in memory answer the test split."""
    from safetensors.numpy import load_file

    from deploycheck.stages import data
    from deploycheck.stages.model import predictor

    artifact = work.input("model")
    work.report(f"evaluate: {work.step.variant} in memory")
    network = _apply(work, method_chain(work.plan.spec, work.step.variant or ""))
    inputs = data.read(work.input("data").path).splits["test"].inputs
    outputs = predictor(network, PREDICT_BATCH)(load_file(artifact.file("weights.safetensors")), inputs)
    write_arrays({"outputs": outputs}, building.out / ANSWERS)
    return {"model": artifact.digest}


def decided_by_memory(work: Work) -> Made:
    """The model's code and the methods'; the weights are what it is made from."""
    return decided_by_model(work)


def make_load(work: Work, building: Building) -> Made:
    """Serve the artifact in a process of its own, and measure it under load."""
    from safetensors.numpy import load_file

    from deploycheck.runner.measure import measure

    in_memory = load_file(work.input("memory").file(ANSWERS))["outputs"]
    with work.machine.timing():
        measure(work.step.variant or "", work.input("model"), in_memory, _bench(work, building), building.out)
    return {"model": work.input("model").digest}


def decided_by_load(work: Work) -> Made:
    """The serve section. Its address lies in the run's own folder: it is measured anew in each."""
    return {"serve": work.serve.model_dump(exclude={"expect"})}


def make_duel(work: Work, building: Building) -> Made:
    """Serve two artifacts at once, and measure them in turn."""
    from deploycheck.runner.measure import compare

    one, _, other = (work.step.variant or "").partition(",")
    models = {name: work.inputs[f"model[{name}]"] for name in (one, other)}
    with work.machine.timing():
        compare((one, models[one]), (other, models[other]), _bench(work, building), building.out)
    return {"models": {name: model.digest for name, model in models.items()}}


def make_noise(work: Work, building: Building) -> Made:
    """Serve an artifact twice, and measure it against itself in turn, as long as any two are compared."""
    from deploycheck.runner.measure import compare

    model = work.input("model")
    with work.machine.timing():
        compare(("A", model), ("B", model), _bench(work, building), building.out)
    return {"model": model.digest}


def _bench(work: Work, building: Building) -> Bench:
    """Return what a load is taken with; it ends when every check that needs this step is decided."""
    from deploycheck.runner.measure import Bench
    from deploycheck.stages import examples

    runtime = load_object(work.extensions.runtimes[work.serve.runtime], work.root, work.where)
    inputs = examples.read(work.input("data").file("test.safetensors")).inputs
    confidence = work.plan.spec.confidence
    goals = tuple(
        Goal(functools.partial(measure_load, work.extensions.metrics[check.family], check), check.threshold, confidence)
        for check in work.plan.checks
        if check.threshold and work.step.name in check.needs
    )
    return Bench(work.serve, inputs, goals, runtime, building.scratch, work.report)


def measure_load(metric: MetricFunction, check: Check, *loads: LoadReport) -> Measurement:
    """Return what a metric measures of a load, or of the first of two relative to the second."""
    family = {} if check.percentile is None else {"percentile": check.percentile}
    first, *second = (metric.measure(load=load, **family) for load in loads)
    if not second:
        return first
    invalid = first.invalid or second[0].invalid
    return replace(first, sample=ratio_of(first.sample, second[0].sample), doubt="", invalid=invalid)


MAKERS: Mapping[str, tuple[Callable[[Work, Building], Made], Callable[[Work], Made]]] = {
    "data": (make_data, decided_by_data),
    "training": (make_training, decided_by_training),
    "model": (make_model, decided_by_model),
    "outputs": (make_outputs, decided_by_outputs),
    "memory": (make_memory, decided_by_memory),
    "load": (make_load, decided_by_load),
    "duel": (make_duel, decided_by_load),
    "noise": (make_noise, decided_by_load),
}


def _loader_path(work: Work) -> str:
    load = work.plan.spec.data.load
    return work.extensions.loaders.get(load, load)


def _loader_arguments(work: Work) -> dict[str, Any]:
    """Return the loader's arguments; its ``path``, if it takes one, is looked up under the root and stays in it."""
    section = work.plan.spec.data
    arguments = dict(section.arguments)
    if isinstance(arguments.get("path"), str):
        path = (work.root / arguments["path"]).resolve()
        if not path.is_relative_to(work.root.resolve()):
            raise DeploycheckError(
                f"{arguments['path']} lies outside of the project",
                where=work.where,
                hint="move the file into it",
            )
        arguments["path"] = path
    return arguments


def _content_digest(path: Path, where: str) -> str:
    """Return the sha256 of a file, or of the names and contents of all files in a folder."""
    import hashlib

    def digest(file: Path) -> str:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    try:
        if not path.is_dir():
            return digest(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "\n".join(f"{digest(file)} {file.relative_to(path).as_posix()}" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    except OSError as error:
        raise DeploycheckError(f"{path} can't be read: {error.strerror}", where=where) from error


def _preprocessing(work: Work) -> list[tuple[str, Preprocessing, Mapping[str, Any]]]:
    steps: list[tuple[str, Preprocessing, Mapping[str, Any]]] = []
    for entry in work.plan.spec.data.preprocess:
        ((name, options),) = entry.items()
        step = load_object(work.extensions.steps.get(name, name), work.root, work.where)
        steps.append((name.replace("/", "."), step, options))
    return steps


def _preprocessing_code(work: Work) -> dict[str, str]:
    code: dict[str, str] = {}
    for entry in work.plan.spec.data.preprocess:
        (name,) = entry
        code |= code_fingerprint(work.extensions.steps.get(name, name), work.root)
    return code


def _build(work: Work, example: Mapping[str, Any], seed: int) -> Model:
    from deploycheck.stages.model import build_model

    section = work.plan.spec.model
    build = load_object(section.build, work.root, work.where)
    return build_model(build, section.arguments, example, seed, where=f"{work.where}: {section.build}")


def _apply(work: Work, chain: tuple[tuple[str, Mapping[str, Any]], ...]) -> Any:
    """Return the function that goes with a variant's stored weights: the model's, rewritten by each method."""
    import numpy as np

    from deploycheck.stages.model import to_network
    from deploycheck.stages.preprocess import apply_all

    inputs = work.plan.spec.model.input
    example = {name: np.zeros((1, *part.shape), part.dtype) for name, part in inputs.items()}
    apply = to_network(_build(work, example, work.plan.spec.train.seeds[0]), apply_all(_preprocessing(work)), {}).apply
    for name, options in chain:
        apply = _method(work, name).rewrite(apply, options)
    return apply


def _method(work: Work, name: str) -> Method:
    method: Method = load_object(work.extensions.compressors.get(name, name), work.root, work.where)
    return method


def _recipe(section: Any) -> Any:
    from deploycheck.stages.train import Recipe

    ((name, options),) = section.optimizer.items()
    ((schedule, shape),) = section.schedule.items()
    stop = section.stop_early
    return Recipe(
        name, options, section.epochs, section.batch_size, section.loss, schedule, shape.warmup, shape.end,
        section.regularize.l1, section.regularize.l2, stop.watch if stop else None, stop.patience if stop else 0,
    )  # fmt: skip


def _platform() -> dict[str, Any]:
    """Return what compiled arithmetic depends on."""
    import jax

    libraries = ("jax", "jaxlib", "flax", "optax", "qwix", "numpy", "safetensors")
    return {
        "versions": versions(*libraries),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }
