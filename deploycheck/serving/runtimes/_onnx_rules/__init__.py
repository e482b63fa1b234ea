"""How each primitive of JAX is expressed in ONNX: one small function for each, in the file of its family."""

from deploycheck.serving.runtimes._onnx_graph import Rules
from deploycheck.serving.runtimes._onnx_rules import (
    control,
    conversions,
    elementwise,
    indexing,
    layout,
    products,
    reductions,
)

RULES = Rules(
    elementwise={**elementwise.RULES, **conversions.RULES, **layout.ELEMENTWISE},
    others={**layout.RULES, **products.RULES, **reductions.RULES, **indexing.RULES, **control.RULES},
)
