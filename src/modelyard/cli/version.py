"""`modelyard version`"""

import platform

import modelyard
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json


def version(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print the version of Modelyard."""
    if as_json:
        print_json(
            {
                "version": modelyard.__version__,
                "python": platform.python_version(),
                "home": str(resolve_home(home).root),
            }
        )
    else:
        print(f"modelyard {modelyard.__version__}")
