"""Modelyard: from a folder of weights to a production service, and kept there."""

# As in typing, which would cost more to import than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from modelyard.client import Client as Client
    from modelyard.registry.origin import Origin as Origin
    from modelyard.registry.registry import Registry as Registry
    from modelyard.registry.versions import Recipe as Recipe

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: `import modelyard` itself costs nothing."""
    if name == "Registry":
        from modelyard.registry.registry import Registry

        return Registry
    if name == "Origin":
        from modelyard.registry.origin import Origin

        return Origin
    if name == "Recipe":
        from modelyard.registry.versions import Recipe

        return Recipe
    if name == "Client":
        from modelyard.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
