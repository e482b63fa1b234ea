"""Hold a model to its deployment standard: ``pytest --deploycheck specs/``."""

from importlib.metadata import version

__version__ = version("deploycheck")
