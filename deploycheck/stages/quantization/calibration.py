"""The ranges of activations, found by running a model on examples.

Every product with a quantised weight reports the activation that it meets. The range of an activation is up to its
largest magnitude (``absmax``), up to the magnitude that 99.9 % of its values stay below (``percentile``), or the one of
which int8 codes are closest to the values in the mean square (``mse``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import Calibrate
from deploycheck.stages.quantization.uses import Use

BATCH = 32
BINS = 2048
PERCENTILE = 0.999
CODES = 127

Observe = Callable[[np.ndarray, np.ndarray], None]
"""``observe(places, magnitudes)``: an activation was seen where these numbers say."""
Run = Callable[[Mapping[str, Any], Callable[[Any, jax.Array], None], Mapping[str, Any]], Any]
"""``run(places, watch, inputs)`` evaluates the model; ``watch`` gets the places of a weight and its activation."""


def calibrate(uses: Mapping[str, Use], examples: Examples, how: Calibrate, run: Run) -> dict[str, np.ndarray]:
    """Return the scale of the activation that each multiplied weight meets, one for each layer, by the weight's name.

    Raises ``DeploycheckError`` where there are fewer examples than asked for, or a weight meets no activation.
    """
    chosen = first_examples(examples, how.examples, "calibrate")
    numbered, count = {}, 0
    for name, use in uses.items():
        if use.multiplied:
            size = int(np.prod(use.layers))
            numbered[name] = np.arange(count, count + size, dtype=np.int32).reshape(use.layers)
            count += size
    highest = np.zeros(count)

    def note_highest(places: np.ndarray, magnitudes: np.ndarray) -> None:
        highest[places] = np.maximum(highest[places], magnitudes.max())

    _run_watched(run, numbered, chosen, note_highest)
    unseen = [name for name, places in numbered.items() if not highest[places].all()]
    if unseen:
        raise DeploycheckError(
            f"`calibrate`: no example has a number other than 0 for {', '.join(unseen)}",
            hint="give more examples, or name the weights under `keep`",
        )
    ends = highest if how.method == "absmax" else _clipped(run, numbered, chosen, highest, how.method)
    return {name: (ends[places] / (CODES + 0.5)).astype(np.float32) for name, places in numbered.items()}


def _run_watched(run: Run, numbered: Mapping[str, np.ndarray], examples: Examples, observe: Observe) -> None:
    lock = threading.Lock()  # JAX calls back from threads of its own

    def called(places: Any, activation: Any) -> None:
        with lock:
            observe(np.unique(places), np.abs(np.asarray(activation, np.float32)))

    def watch(places: Any, activation: jax.Array) -> None:
        jax.debug.callback(called, places, activation)

    run_on(lambda inputs: run(numbered, watch, inputs), examples)


def run_on(run: Callable[[Mapping[str, Any]], Any], examples: Examples) -> None:
    """Run a model that calls back on batches of examples; return when all calls were made."""
    compiled = jax.jit(run)
    for start in range(0, len(examples), BATCH):
        part = examples.take(slice(start, start + BATCH))
        jax.block_until_ready(compiled({name: jnp.asarray(array) for name, array in part.inputs.items()}))
    jax.effects_barrier()


def first_examples(examples: Examples, count: int, option: str) -> Examples:
    """Return as many examples as an option asks for; raise ``DeploycheckError`` where there are fewer."""
    if len(examples) < count:
        raise DeploycheckError(
            f"`{option}`: {count} examples are asked for, and the training split has {len(examples)}",
            hint=f"write a smaller number: `{option}: {{examples: ...}}`",
        )
    return examples.take(slice(count))


def _clipped(
    run: Run, numbered: Mapping[str, np.ndarray], examples: Examples, highest: np.ndarray, method: str
) -> np.ndarray:
    """Return the end of each range by a histogram of the magnitudes."""
    histograms = np.zeros((len(highest), BINS))

    def count(places: np.ndarray, magnitudes: np.ndarray) -> None:
        for place in places:
            histograms[place] += np.histogram(magnitudes, BINS, (0, highest[place]))[0]

    _run_watched(run, numbered, examples, count)
    choose = {"percentile": below_percentile, "mse": least_error}[method]
    shares = np.array([choose(histogram) for histogram in histograms])
    ends: np.ndarray = highest * shares
    return ends


def below_percentile(histogram: np.ndarray) -> float:
    """Return the share of a histogram's range below which ``PERCENTILE`` of the values are."""
    shares = np.cumsum(histogram) / histogram.sum()
    return float(np.searchsorted(shares, PERCENTILE) + 1) / len(histogram)


def least_error(histogram: np.ndarray) -> float:
    """Return the share of a histogram's range at which int8 codes have the least mean squared error."""
    values = (np.arange(len(histogram)) + 0.5) / len(histogram)
    ends = np.linspace(0.02, 1, 99)
    steps = ends[:, None] / (CODES + 0.5)
    rounded = np.minimum(np.round(values / steps), CODES) * steps
    return float(ends[((values - rounded) ** 2 @ histogram).argmin()])
