"""`modelyard conformance run`"""

from modelyard.cli.options import HomeOption, JsonOption


def run(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Not yet."""
