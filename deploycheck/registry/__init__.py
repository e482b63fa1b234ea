"""The registry: which version of a model each alias points at, every move of an alias, and how to roll back."""

from deploycheck.registry.ledger import Promotion, Registry, RegistryError, StalePromotion, Version

__all__ = ["Promotion", "Registry", "RegistryError", "StalePromotion", "Version"]
