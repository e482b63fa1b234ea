"""What compression is worth: bytes on disk, and speed on both runtimes, each held against a limit. One run.

    python benchmarks/smaller.py [--rounds 7] [--width 512] [--layers 7]

Sizes are those of exported artifacts, as a share of the float one, of a classifier of 102,330 parameters. Speeds are of
a network of three convolutions, whole and with half of its channels, and of a transformer encoder of 22,000,000
parameters in float and in int8. What is compared answers in turn, and the least of the times counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from runtimes import TOKENS, Cnn, Encoder, Row, batch_of, export, times_of

from deploycheck.serving.runtimes import BUILT_IN
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.stages.methods.prune import Prune, PruneOptions
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.network import TensorSpec
from deploycheck.stages.quantization import quantize_weights
from specs.models import conv_classifier

Inputs = Mapping[str, TensorSpec]
BATCHES = (1, 8, 32)
IMAGE = {"image": TensorSpec((28, 28, 1), "float32")}


def built(build: Callable[..., Any], inputs: Inputs, **arguments: Any) -> Model:
    """Build a model with these inputs."""
    shapes = {name: jax.ShapeDtypeStruct((2, *each.shape), np.dtype(each.dtype)) for name, each in inputs.items()}
    return build_model(build, arguments, shapes, seed=0, outputs=("logits",))


def pruned(model: Model, **options: Any) -> Model:
    """Prune a model, without training it further."""
    return Prune().compress(model, PruneOptions.model_validate(options), None)


def held(what: str, found: float, limit: float, *, least: bool) -> bool:
    """Print a figure and its limit; return whether it is met."""
    met = found >= limit if least else found <= limit
    print(f"| {what} | {found:.3f} | {'>=' if least else '<='} {limit} | {'yes' if met else 'no'} |", flush=True)
    return met


def sizes(folder: Path) -> list[bool]:
    """Compare the bytes on disk, on each runtime."""
    inputs = {"image": TensorSpec((8, 8, 1), "float32")}
    model = built(conv_classifier, inputs, shape=[8, 8, 1], features=[96, 112], classes=10)
    forms = {
        "int8": (quantize_weights(model, QuantizeOptions(weights="int8", activations="int8")), 0.27),
        "int4": (quantize_weights(model, QuantizeOptions(weights="int4")), 0.15),
        "80 % sparse": (pruned(model, sparsity="80 %"), 0.30),
    }
    found = []
    for runtime in BUILT_IN:
        whole = export(model, inputs, runtime, folder / f"float-{runtime.name}", BATCHES).size
        for name, (form, limit) in forms.items():
            share = export(form, inputs, runtime, folder / f"{name}-{runtime.name}", BATCHES).size / whole
            if runtime is XLA:
                found.append(held(f"bytes, {name}, {runtime.name}", share, limit, least=False))
            else:  # its program isn't compressed, so that other tools can open it
                print(f"| bytes, {name}, {runtime.name} | {share:.3f} | | |", flush=True)
    return found


def speedups(what: str, forms: Mapping[str, Model], inputs: Inputs, folder: Path, rounds: int) -> dict[str, float]:
    """Print how much faster the second form is than the first, on each runtime, for each batch.

    Returns the least time of each form for the largest batch, whichever runtime has it, in ms.
    """
    rows: list[Row] = [
        export(form, inputs, runtime, folder / f"{what}-{name}-{runtime.name}", BATCHES)
        for name, form in forms.items()
        for runtime in BUILT_IN
    ]
    labels = [f"{name}, {runtime.name}" for name in forms for runtime in BUILT_IN]
    columns = [times_of(rows, batch_of(inputs, size), rounds) for size in BATCHES]
    for at, label in enumerate(labels):
        print(f"| ms, {what}, {label} | {' / '.join(f'{column[at]:.2f}' for column in columns)} | | |", flush=True)
    count = len(BUILT_IN)
    return {name: min(columns[-1][at * count : (at + 1) * count]) for at, name in enumerate(forms)}


def main() -> None:
    """Print all figures; exit with 1 where a limit isn't met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=7)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ms are for {BATCHES} examples\n")
    print("| | found | limit | met |\n| --- | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        met = sizes(folder)
        cnn = built(Cnn, IMAGE)
        times = speedups("cnn", {"whole": cnn, "half": pruned(cnn, channels="50 %")}, IMAGE, folder, asked.rounds)
        met.append(held("speed, half of the channels", times["whole"] / times["half"], 1.5, least=True))
        tokens = {"tokens": TensorSpec((TOKENS,), "int32")}
        encoder = built(lambda rngs: Encoder(asked.width, asked.layers, rngs), tokens)
        int8 = quantize_weights(encoder, QuantizeOptions(weights="int8", activations="int8"))
        times = speedups("encoder", {"float32": encoder, "int8": int8}, tokens, folder, asked.rounds)
        met.append(held("speed, int8 encoder", times["float32"] / times["int8"], 1.2, least=True))
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
