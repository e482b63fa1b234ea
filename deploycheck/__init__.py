"""Hold a model to its deployment standard: ``pytest --deploycheck specs/``."""
