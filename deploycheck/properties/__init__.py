"""Properties of a model, one file each: what must hold for every input. ``search`` looks for one that violates it."""

from deploycheck.properties.domain import Batch, Domain, InputDomain, Row, batches, batches_of, rows
from deploycheck.properties.property import NoAnswer, Predictor, Property
from deploycheck.properties.settings import PropertySettings, ToleranceSettings

__all__ = [
    "Batch",
    "Domain",
    "InputDomain",
    "NoAnswer",
    "Predictor",
    "Property",
    "PropertySettings",
    "Row",
    "ToleranceSettings",
    "batches",
    "batches_of",
    "rows",
]
