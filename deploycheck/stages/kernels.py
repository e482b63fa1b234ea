"""Which weights are the kernels of a model: operands of its matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.quantization.uses import find_uses


def find_kernels(model: Model) -> dict[str, int | None]:
    """Return the floating weights of two or more axes that are multiplied with an activation, by name.

    The value is the axis that the product sums over: for a convolution that of the input channels, None where there
    is none of more than one. The weights are followed as they are for quantisation.
    """
    shapes, restore = flatten(model.form.params)

    def apply(params: Mapping[str, Any], state: PyTree, inputs: Inputs) -> Outputs:
        return model.apply(restore(params), state, inputs)

    uses = find_uses(apply, shapes, model.state, model.inputs)
    return {name: use.grouped for name, use in uses.items() if use.multiplied and len(use.shape) > 1}
