"""`modelyard conformance engines`"""

from modelyard.cli.options import HomeOption, JsonOption


def engines(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Not yet."""
