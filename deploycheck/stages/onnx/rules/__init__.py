"""What each operator of ONNX gives: one small function for each, in the file of its family.

The contract is that of ONNX's own page of operators (https://onnx.ai/onnx/operators), from version 13 on.
"""

from collections.abc import Mapping

from deploycheck.stages.onnx.graph import Rule
from deploycheck.stages.onnx.rules import (
    activations,
    control,
    elementwise,
    indexing,
    layout,
    normalization,
    pooling,
    products,
    quantization,
    recurrent,
    reductions,
    shapes,
)

RULES: Mapping[str, Rule] = {
    **activations.RULES,
    **control.RULES,
    **elementwise.RULES,
    **indexing.RULES,
    **layout.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **products.RULES,
    **quantization.RULES,
    **recurrent.RULES,
    **reductions.RULES,
    **shapes.RULES,
}
