"""Which form of a convolution trains fastest: XLA's own, with convolutions for gradients, or by Winograd's filtering.

Each is a loop of steps with both gradients, as in an epoch; all are measured in turn in one process. Prints the least
CPU milliseconds of a step, by which the rules in ``deploycheck/stages/lowering/convolutions.py`` are chosen.

    python benchmarks/convolutions.py [--turns 4] [--shapes 128x14x32x64x3 ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deploycheck.stages.lowering import fast_kernel, winograd

SHAPES = (
    *("128x28x16x32x3", "128x14x32x32x3", "128x14x32x64x3", "128x7x64x128x3", "32x14x64x64x3", "32x14x128x128x3"),
    *("16x14x32x64x3", "16x7x256x256x3", "2x14x64x64x3", "1x56x64x64x3", "128x14x32x64x5", "128x14x32x64x2"),
)
MULTIPLICATIONS = 3e9
"""How many a loop has, about: enough that the start of it doesn't count."""


def _convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _by(form: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return the same convolution in a form that ``deploycheck/stages/lowering`` has for it."""

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        padding = lax.padtype_to_pads(image.shape[1:3], kernel.shape[:2], (1, 1), "SAME")
        return form(image, kernel, tuple(padding), None)

    return convolve


WINOGRAD = "Winograd"
FORMS = {"XLA's own": _convolve, "convolutions": _by(fast_kernel.convolve), WINOGRAD: _by(winograd.convolve)}


def measure(shape: str, turns: int) -> dict[str, float]:
    """Return the CPU milliseconds of a step in each form that there is for this window."""
    count, size, channels, features, window = map(int, shape.split("x"))
    random = np.random.default_rng(0)
    image = jnp.asarray(random.normal(size=(count, size, size, channels)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(window, window, channels, features)), jnp.float32)
    direction = jnp.asarray(random.normal(size=(count, size, size, features)), jnp.float32)
    steps = max(4, min(40, round(MULTIPLICATIONS / (3 * direction.size * window**2 * channels))))

    def loop(form: Callable[..., Any]) -> Callable[[], Any]:
        def step(weights: Any, _: None) -> Any:
            result, gradients = jax.vjp(form, *weights)
            changes = gradients(direction * (result > 0))
            return jax.tree.map(lambda it, change: it - 1e-6 * change, weights, changes), None

        compiled = jax.jit(lambda *weights: lax.scan(step, weights, None, length=steps)[0])
        return lambda: jax.block_until_ready(compiled(image, kernel))

    forms = {name: form for name, form in FORMS.items() if name != WINOGRAD or window == winograd.SIZE}
    loops = {name: loop(form) for name, form in forms.items()}
    for run in loops.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(turns):
        for name, run in loops.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: 1e3 * min(found) / steps for name, found in seconds.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="images x height x channels x features x window")
    given = parser.parse_args()
    print(f"{'shape':18}", *(f"{name:>14}" for name in FORMS))
    for shape in given.shapes:
        print(f"{shape:18}", *(f"{found:11.2f} ms" for found in measure(shape, given.turns).values()), flush=True)


if __name__ == "__main__":
    main()
