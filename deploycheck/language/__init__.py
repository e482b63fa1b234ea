"""The spec language: text to ``Spec``, or every mistake at once, each at its file, line and column.

Pure: it reads the files a spec names, imports none of them, and knows no JAX.
"""

from deploycheck.language.errors import Place, SpecError, SpecErrors
from deploycheck.language.expect import Expectation
from deploycheck.language.fields import Section
from deploycheck.language.load import Spec, load
from deploycheck.language.methods import AnotherModel
from deploycheck.language.recognize import SUFFIXES, Recognition, recognize_file
from deploycheck.language.threshold import Threshold, parse_threshold
from deploycheck.language.tree import SpecSection, json_schema
from deploycheck.language.vocabulary import Dimension, Metric, PropertyWord, SamplerWord, TaskWord, Vocabulary

__all__ = [
    "SUFFIXES",
    "AnotherModel",
    "Dimension",
    "Expectation",
    "Metric",
    "Place",
    "PropertyWord",
    "Recognition",
    "SamplerWord",
    "Section",
    "Spec",
    "SpecError",
    "SpecErrors",
    "SpecSection",
    "TaskWord",
    "Threshold",
    "Vocabulary",
    "json_schema",
    "load",
    "parse_threshold",
    "recognize_file",
]
