"""The configuration file: every setting in its reference, every mistake told where it stands."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.core.errors import InvalidConfig
from modelyard.gateway.checking import check_file
from modelyard.gateway.config import GatewayFile
from modelyard.gateway.filesource import read_config
from modelyard.gateway.yamlfile import read_settings

REFERENCE = Path(__file__).parents[2] / "docs" / "gateway.reference.yaml"
SMALLEST = """\
listen: 127.0.0.1:8000
models: [{name: m, upstreams: [{url: "http://127.0.0.1:9400"}]}]
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return file


def refusal(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        read_config(write(tmp_path, text), environment or {})
    assert str(tmp_path / "gateway.yaml") in caught.value.message
    assert caught.value.next_step
    return caught.value


def test_the_smallest_file_is_enough(tmp_path: Path) -> None:
    found = read_config(write(tmp_path, SMALLEST), {})
    assert (found.host, found.port) == ("127.0.0.1", 8000)
    (model,) = found.snapshot.models
    assert model.name == "m"
    assert model.slots[0].digest.startswith("remote:")
    assert found.keys == ()


# --- the reference -------------------------------------------------------------------------------


def _settings(kind: Any, where: str = "") -> dict[str, Any]:
    """Every setting below a type, with its default."""
    found: dict[str, Any] = {}
    info = msgspec.inspect.type_info(kind)
    for field in info.fields:  # type: ignore[attr-defined]
        below = [
            part for part in _parts(field.type) if isinstance(part, msgspec.inspect.StructType)
        ]
        path = f"{where}{field.encode_name}"
        if below:
            found |= _settings(below[0].cls, f"{path}.")
        else:
            found[path] = field.default
    return found


def _parts(kind: Any) -> list[Any]:
    parts = [kind]
    for name in ("types", "item_types"):
        parts += getattr(kind, name, ())
    item = getattr(kind, "item_type", None)
    return parts + ([item] if item is not None else [])


def _values(tree: Any, where: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = (
            value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        )
        nested = isinstance(inner, dict) and inner
        found |= _values(inner, f"{where}{name}.") if nested else {f"{where}{name}": inner}
    return found


def test_the_reference_lists_every_setting_with_its_default() -> None:
    import yaml

    shown = _values(yaml.safe_load(REFERENCE.read_text()))
    known = _settings(GatewayFile)

    assert sorted(shown) == sorted(known)
    given = {"models.name", "models.upstreams.url", "tenants.name", "keys.id", "keys.sha256",
             "tls.cert_file", "tls.key_file"}  # fmt: skip
    for path, default in known.items():
        if path in given or default is msgspec.NODEFAULT:
            continue
        value = tuple(shown[path]) if isinstance(shown[path], list) else shown[path]
        assert value == default or (not value and not default), path


def test_the_reference_is_a_file_that_a_gateway_takes() -> None:
    found = read_config(REFERENCE, {})
    assert [model.name for model in found.snapshot.models] == ["assistant"]
    assert len(found.keys) == 2


# --- mistakes ------------------------------------------------------------------------------------

MODEL = 'models: [{name: m, upstreams: [{url: "http://127.0.0.1:9"}]}]\n'


def with_model(**more: object) -> str:
    """A file with one model, on lines of its own."""
    lines = [f"    {name}: {value}" for name, value in more.items() if name != "upstreams"]
    upstreams = more.get("upstreams", "[{url: 'http://h'}]")
    return "\n".join(["models:", "  - name: m", f"    upstreams: {upstreams}", *lines, ""])


TWO = "models: [{name: m, upstreams: [{url: 'http://h'}]MORE}, "
TWO += "{name: NAME, upstreams: [{url: 'http://i'}]MORE}]\n"


@pytest.mark.parametrize(
    ("text", "line", "said", "next_step"),
    [
        ("", 0, "`models` is missing", "reference"),
        ("models: []\n", 1, "models: ", "reference"),
        ("modles: []\n" + MODEL, 1, "modles: no such setting", "did you mean models?"),
        (MODEL + "drain: 5\n", 2, "drain: no such setting", "drain_s"),
        (with_model(retries="\n      max_attempt: 2"), 5,
         "models[0].retries.max_attempt: no such setting", "did you mean max_attempts?"),
        (with_model(upstreams="\n      - url: http://h\n        wieght: 2"), 5,
         "models[0].upstreams[0].wieght: no such setting", "did you mean weight?"),
        (with_model(timeouts="{gap_s: 0}"), 4, "models[0].timeouts.gap_s: ", "reference"),
        (MODEL + "drain_s: soon\n", 2, "drain_s: Expected `float`, got `str`", "reference"),
        ("models:\n  - name: m\n", 2, "models[0]: `upstreams` is missing", "reference"),
        ("a: b: c\n", 1, "is not YAML", "correct the line"),
        (MODEL + "listen: 1.2.3.4\n", 0, "'1.2.3.4' is not an address", "HOST:PORT"),
        (MODEL + "listen: 127.0.0.1:70000\n", 0, "is not an address", "HOST:PORT"),
        (MODEL + MODEL, 2, "`models` stands here twice", "leave one"),
        (TWO.replace("NAME", "m").replace("MORE", ""), 0, "models: 'm' stands twice", "leave one"),
        (with_model(upstreams="[{url: 'http://h'}, {url: 'http://h/'}]"), 0,
         "upstreams: 'm/h' stands twice", "leave one"),
        (with_model(upstreams="[{url: 'ftp://h'}]"), 0, "'ftp://h' is not a URL", "http"),
        (with_model(upstreams="[{url: 'http://h/v1'}]"), 0, "ends with /v1", "http://h:"),
        (with_model(upstreams="[{url: 'http://u:p@h'}]"), 0, "a user", "api_key_env"),
        (with_model(fallbacks="[n]"), 0, "fallbacks: there is no 'n'", "there are: m"),
        (with_model(fallbacks="[m]"), 0, "falls back on itself", "take it out"),
        (with_model(limits="{cost_per_day: 5}"), 0, "needs prices", "remove that limit"),
        (with_model(limits="{cost_per_day: -5}"), 4, "models[0].limits", "reference"),
        (with_model(price="{input_per_million: -1}"), 4, "models[0].price.input_per_million: ",
         "reference"),
        (with_model(price="{replica_hour: .nan}"), 4, "models[0].price.replica_hour: ", ""),
        (with_model(price="{replica_hour: 1e12}"), 4, "models[0].price.replica_hour: ", ""),
        (with_model(price="{input_per_milion: 1}"), 4, "input_per_milion: no such setting",
         "input_per_million"),
        ("currency: euros\n" + MODEL, 1, "currency: ", ""),
        (MODEL + "keys: [{id: a, secret_env: S, models: [m], limits: {cost_per_day: 5}}]\n", 0,
         "keys 'a': cost_per_day needs prices, and 'm' has none", "give the model a `price`"),
        (MODEL + "telemetry: {traces: {endpoint: 'h:4318'}}\n", 0,
         "telemetry.traces.endpoint: not the URL of a collector", "/v1/traces"),
        (MODEL + "telemetry: {traces: {sample: 1.5}}\n", 2, "telemetry.traces.sample", ""),
        (MODEL + "telemetry: {traces: {headers_env: {host: H}}}\n", 0, "'host'", "header"),
        (MODEL + "records: {contents: true}\n", 2, "records.contents: no such", "content?"),
        (with_model(limits="{requests_per_hour: 5}"), 4, "'requests_per_hour'",
         "allowed here: concurrent_requests, cost_per_day"),
        (with_model(balancing="fastest"), 4, "models[0].balancing: ", "least_in_flight, "),
        (with_model(upstreams="[{url: 'http://h', api_key_env: GONE}]"), 0,
         "the environment variable GONE is empty or not set", "set it"),
        (with_model(upstreams="[{url: 'http://h', api_key_file: gone.txt}]"), 0,
         "gone.txt can't be read", "readable"),
        (MODEL + "keys: [{id: a}]\n", 0, "exactly one of sha256", "keys create"),
        (MODEL + "keys: [{id: a, sha256: abc}]\n", 0, "64 hexadecimal digits", "never the secret"),
        (MODEL + "keys: [{id: a, secret_env: S}, {id: b, secret_env: S}]\n", 0,
         "the same secret as 'a'", "another"),
        (MODEL + "keys: [{id: a, secret_env: S, models: [n]}]\n", 0, "there is no 'n'", "m"),
        (MODEL + "tenants: [{name: t}]\nkeys: [{id: a, secret_env: S, tenant: u}]\n", 0,
         "there is no 'u'", "default, t"),
        (MODEL + "keys: [{id: a, secret_env: ODD}]\n", 0, "no header can carry", "alone"),
        (TWO.replace("NAME", '"n\\nb"').replace("MORE", ""), 0, "models[1].name: ", ""),
        (TWO.replace("NAME", "n").replace("MORE", ", default: true"), 0,
         "more than one is the default", "leave one"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_to_do(
    tmp_path: Path, text: str, line: int, said: str, next_step: str
) -> None:
    error = refusal(tmp_path, text, {"S": "sk-s", "ODD": "a b"})
    assert said in error.message
    assert next_step in error.next_step
    if line:
        assert f"line {line}" in error.message
    assert "sk-s" not in error.message


def test_a_file_that_is_not_there_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"nowhere\.yaml can't be read: No such file"):
        read_settings(tmp_path / "nowhere.yaml", GatewayFile)
    (tmp_path / "gateway.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="can't be read"):
        read_settings(tmp_path / "gateway.yaml", GatewayFile)


def test_the_identity_of_remote_weights_is_what_was_declared_of_them(tmp_path: Path) -> None:
    def digest(upstreams: str, more: str = "") -> str:
        text = f"models: [{{name: m, upstreams: [{upstreams}]{more}}}]\n"
        return read_config(write(tmp_path, text), {}).snapshot.models[0].slots[0].digest

    one, two = "{url: 'http://a'}", "{url: 'http://b'}"
    assert digest(f"{one}, {two}") == digest(f"{two}, {one}")
    others = {digest(one), digest(two), digest(one, ", revision: '2'"),
              digest("{url: 'http://a', model: x}")}  # fmt: skip
    assert len(others) == 4
    assert all(re.fullmatch(r"remote:[0-9a-f]{64}", each) for each in others)


def test_secrets_are_read_from_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "vendor.key").write_text("sk-vendor\n")
    text = (
        "models: [{name: m, upstreams: [{url: 'http://h', api_key_file: vendor.key}]}]\n"
        "keys: [{id: a, secret_file: vendor.key}]\n"
    )
    found = read_config(write(tmp_path, text), {})
    assert found.secrets == {"file:vendor.key": "sk-vendor"}
    assert "sk-vendor" not in str(found.snapshot)
    assert "sk-vendor" not in str(found.keys)
    assert tmp_path / "vendor.key" in found.used_files


def test_an_upstream_may_be_there_with_several_keys(tmp_path: Path) -> None:
    text = """\
models:
  - name: m
    upstreams:
      - {url: "http://h:1", api_key_env: FIRST}
      - {url: "http://h:1/", api_key_env: SECOND}
"""
    found = read_config(write(tmp_path, text), {"FIRST": "sk-1", "SECOND": "sk-2"})

    replicas = found.snapshot.models[0].slots[0].replicas
    assert [replica.id for replica in replicas] == ["m/h:1", "m/h:1#2"]
    assert [found.secrets[str(replica.credential)] for replica in replicas] == ["sk-1", "sk-2"]
    again = refusal(tmp_path, text.replace("SECOND", "FIRST"), {"FIRST": "sk-1"})
    assert "stands twice" in again.message


@pytest.mark.parametrize("text", ["a: 2024-02-31\n", "a: " + "[" * 5000])
def test_what_yaml_itself_trips_over_is_said(tmp_path: Path, text: str) -> None:
    assert "can't be read" in refusal(tmp_path, text).message


def test_a_check_tells_of_a_header_whose_variable_is_not_set(tmp_path: Path) -> None:
    traces = "{endpoint: 'http://h', headers_env: {authorization: GONE}}"
    file = write(tmp_path, MODEL + f"telemetry: {{traces: {traces}}}\n")
    (mistake,) = check_file(file, {}).mistakes
    assert "GONE is empty or not set" in mistake.message
    assert check_file(file, {"GONE": "Bearer with a space"}).found is not None
    assert check_file(file, {}, secrets_needed=False).found is not None
