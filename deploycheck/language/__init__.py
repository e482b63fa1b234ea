"""The spec language: text to ``Spec``, or every mistake at once, each at its file, line and column.

Pure: it reads the files a spec names, imports none of them, and knows no JAX.
"""

from deploycheck.language.errors import Place, SpecError, SpecErrors
from deploycheck.language.expect import Expectation
from deploycheck.language.fields import Section
from deploycheck.language.load import Spec, load
from deploycheck.language.recognize import is_spec, near_miss
from deploycheck.language.threshold import Threshold, parse_threshold
from deploycheck.language.tree import SpecSection, json_schema
from deploycheck.language.vocabulary import Dimension, Metric, PropertyWord, TaskWord, Vocabulary

__all__ = [
    "Dimension",
    "Expectation",
    "Metric",
    "Place",
    "PropertyWord",
    "Section",
    "Spec",
    "SpecError",
    "SpecErrors",
    "SpecSection",
    "TaskWord",
    "Threshold",
    "Vocabulary",
    "is_spec",
    "json_schema",
    "load",
    "near_miss",
    "parse_threshold",
]
