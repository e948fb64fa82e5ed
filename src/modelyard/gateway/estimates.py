"""What is learnt of each model's tokens."""

from modelyard.core.estimates import Estimate


class Estimates:
    """By public model name; there are as many as models that were asked."""

    def __init__(self) -> None:
        self._models: dict[str, Estimate] = {}

    def of(self, model: str) -> Estimate:
        """What is known of a model."""
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = Estimate()
        return known
