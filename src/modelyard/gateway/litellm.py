"""A LiteLLM proxy's configuration as one of the stand-alone gateway.

What has a counterpart is taken over; everything else is noted with its path, why it was left out,
and what to do instead. No secret is taken along: the new file names variables.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.gateway.config import is_name
from modelyard.gateway.litellm_deployments import DeploymentReader
from modelyard.gateway.litellm_fallbacks import FallbackReader
from modelyard.gateway.litellm_keys import SecretNames, names_in, variable_of
from modelyard.gateway.litellm_models import Group, models_of
from modelyard.gateway.litellm_notes import Note, Notes, Section
from modelyard.gateway.litellm_policies import PolicyReader
from modelyard.gateway.litellm_reasons import OF_FILE, OF_GENERAL, OF_VARIABLES
from modelyard.gateway.litellm_source import read_source

LISTEN = "127.0.0.1:4000"
"""LiteLLM's own port, on this machine alone."""
MASTER_KEY = "LITELLM_MASTER_KEY"
_MASTER_ID = "master"
_MB = 1024 * 1024


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a file."""

    settings: dict[str, Any]
    """As in `GatewayFile`; without models it can't be used."""
    sources: dict[str, list[str]]
    """By model: the entries that it came from."""
    origins: tuple[tuple[str, str], ...]
    """Settings that hold for all models, and what each became."""
    notes: tuple[Note, ...]
    variables: tuple[str, ...]
    """Those that must be set where the gateway is started."""


def convert_file(file: Path, environment: Mapping[str, str]) -> Conversion:
    """Convert; raises InvalidConfig for what is no configuration at all."""
    notes = Notes()
    return _Converter(read_source(file, notes), environment, notes).convert()


class _Converter:
    """One file on its way."""

    def __init__(
        self, source: Mapping[str, Any], environment: Mapping[str, str], notes: Notes
    ) -> None:
        self._notes = notes
        set_there = source.get("environment_variables")
        texts = set_there.items() if isinstance(set_there, Mapping) else ()
        variables = {**environment, **{str(k): str(v) for k, v in texts if v is not None}}
        self._variables = variables
        self._file = Section("", source, notes, variables)
        self._names = SecretNames()
        for name in names_in(source):
            self._names.use(name)
        self._origins: list[tuple[str, str]] = []

    def convert(self) -> Conversion:
        """Read section by section, and note at the end what nobody read."""
        router, module = self._file.below("router_settings"), self._file.below("litellm_settings")
        general = self._file.below("general_settings")
        credentials = self._credentials()
        reader = DeploymentReader(self._notes, self._variables, self._names, credentials)
        found = [reader.read(path, item) for path, item in self._file.items("model_list")]
        for name, held in credentials.items():
            if name not in reader.used_credentials:
                entry = held.path.rpartition(".")[0]
                self._notes.add(
                    entry, None, "no model that was taken over uses it", "nothing is needed"
                )
        policy_reader = PolicyReader(router, module)
        policies = policy_reader.read()
        aliases = router.below("model_group_alias")
        groups = models_of(
            [each for each in found if each is not None], policies, set(aliases.left())
        )
        self._alias(aliases, groups)
        FallbackReader(router, module, groups).read()
        self._origins += policies.origins
        settings = self._general(general, groups)
        policy_reader.rest()
        general.rest(OF_GENERAL)
        self._file.below("environment_variables").rest((OF_VARIABLES,))
        self._file.rest(OF_FILE)
        models = settings["models"] = [group.settings for group in groups.values()]
        if any("price" in each for model in models for each in model["upstreams"]):
            settings["currency"] = "USD"
        return Conversion(
            settings=settings,
            sources={name: group.paths for name, group in groups.items()},
            origins=tuple(self._origins),
            notes=self._notes.all(),
            variables=tuple(sorted(_variables(settings))),
        )

    def _credentials(self) -> dict[str, Section]:
        """`credential_values` by name."""
        found: dict[str, Section] = {}
        for path, item in self._file.items("credential_list"):
            entry = Section(
                path, item if isinstance(item, Mapping) else {}, self._notes, self._variables
            )
            name, values = entry.text("credential_name"), entry.below("credential_values")
            if name is None or name in found:
                self._notes.add(
                    path, item if name is None else name,
                    "has no name of its own", "add api_key_env to the upstreams that use it",
                )  # fmt: skip
                continue
            found[name] = values
            entry.leave("credential_info", "describes it", "nothing is needed")
            entry.rest(())
        return found

    def _alias(self, aliases: Section, groups: dict[str, Group]) -> None:
        """An alias is a model with the same upstreams."""
        for name in aliases.left():
            value = aliases.take(name)
            item = Section(
                aliases.at(name),
                value if isinstance(value, Mapping) else {"model": value},
                self._notes,
                self._variables,
            )
            hidden = item.flag("hidden")
            target = item.text("model")
            if hidden is not None:
                item.note("hidden", hidden, "every model is listed", "nothing is needed")
            item.rest(())
            group = groups.get(target or "")
            if group is None or name in groups or not is_name(name):
                why = "there is no such model in the new file"
                if group is not None:
                    why = "a model has this name, or it can't be one"
                self._notes.add(aliases.at(name), value, why, "add a model of this name by hand")
                continue
            groups[name] = _aliased(name, group, aliases.at(name))

    def _general(self, general: Section, groups: Mapping[str, Group]) -> dict[str, Any]:
        settings: dict[str, Any] = {"listen": LISTEN}
        key = variable_of(general, "master_key", self._names, MASTER_KEY, may_be_placeholder=False)
        if key is not None:
            settings["keys"] = [{"id": _MASTER_ID, "secret_env": key}]
            general.note(
                "master_key",
                f"os.environ/{key}",
                "is a key like any other here: it may ask every model, and administers nothing",
                "make a key for each caller: modelyard keys create --offline",
                taken=True,
            )
        size = general.number("max_request_size_mb", most=2**20)
        if size is not None:
            self._origins.append((general.at("max_request_size_mb"), "max_body_bytes"))
            settings["max_body_bytes"] = max(1, int(size * _MB))
            for group in groups.values():
                group.settings["max_body_bytes"] = settings["max_body_bytes"]
        return settings


def _aliased(name: str, group: Group, path: str) -> Group:
    upstreams = [
        {"url": each["url"], "model": group.settings["name"], **each}
        for each in group.settings["upstreams"]
    ]
    settings = {**group.settings, "name": name, "upstreams": upstreams}
    return Group(settings, [path, *group.paths], stands_for=group.settings["name"])


def _variables(settings: Mapping[str, Any]) -> set[str]:
    keys = {key["secret_env"] for key in settings.get("keys", ())}
    return keys | {
        upstream["api_key_env"]
        for model in settings["models"]
        for upstream in model["upstreams"]
        if "api_key_env" in upstream
    }
