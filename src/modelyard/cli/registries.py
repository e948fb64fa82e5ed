"""The registry of a home, with the catalogue that its settings name."""

from modelyard.core.home import Home
from modelyard.registry.registry import Registry
from modelyard.settings import load_settings


def open_registry(home: Home) -> Registry:
    """For whatever writes into the catalogue or asks it; raises InvalidConfig."""
    return Registry(home, tracking_uri=load_settings(home.config, {}).registry.tracking_uri)
