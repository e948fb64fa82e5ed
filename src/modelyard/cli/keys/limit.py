"""`modelyard keys limit`"""

from typing import Annotated

import typer

from modelyard.api.messages import LimitsWish
from modelyard.cli.keys.words import LIMIT_HELP, read_limits
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client
from modelyard.core.errors import InvalidRequest


def limit(
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="All keys of this tenant.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="All callers of this model.")
    ] = None,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", metavar="KIND=N", help=LIMIT_HELP)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set the limits of a tenant or of a model; those given take the place of all before.

    Without --limit they are taken away. A key's own limits are given when it is made.
    """
    if (tenant is None) == (model is None):
        raise InvalidRequest("whose limits?", next_step="give --tenant NAME or --model NAME")
    everywhere, by_model = read_limits(limits or ())
    wish = LimitsWish(limits=everywhere, limits_by_model=by_model)
    with Client.from_home(resolve_home(home)) as client:
        if tenant is not None:
            client.set_tenant(tenant, wish)
        elif model is not None:
            client.set_model_limits(model, wish)
    if as_json:
        print_json({"tenant": tenant, "model": model, **wish.model_dump(mode="json")})
        return
    told = ", ".join(limits or ()) or "no limits"
    print(f"{f'tenant {tenant}' if tenant else f'model {model}'}: {told}")
