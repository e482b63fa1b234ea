"""Promotion's memory: which version of a model stands where, how it came there, and the way back."""

from deploycheck.registry.ledger import Promotion, Registry, RegistryError, StalePromotion, Version

__all__ = ["Promotion", "Registry", "RegistryError", "StalePromotion", "Version"]
