"""`modelyard gateway import-litellm`"""

from modelyard.cli.options import HomeOption
from modelyard.core.errors import Unsupported


def import_litellm(home: HomeOption = None) -> None:
    """Make a configuration file out of a LiteLLM proxy's."""
    raise Unsupported("it can't convert yet", next_step="write the file by hand")
