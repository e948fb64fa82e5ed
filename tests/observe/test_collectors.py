"""Where spans go: the settings before OpenTelemetry's variables, and mistakes with a way out."""

from pathlib import Path

import pytest

from modelyard.core.errors import InvalidConfig
from modelyard.core.telemetry import TraceOptions
from modelyard.observe.collectors import Collector, collector_of

URL = "http://127.0.0.1:4318/v1/traces"


def of(environment: dict[str, str] | None = None, **options: object) -> Collector | None:
    return collector_of(TraceOptions(**options), environment or {})  # type: ignore[arg-type]


def known(environment: dict[str, str] | None = None, **options: object) -> Collector:
    found = of(environment, **options)
    assert found is not None
    return found


def test_nothing_is_sent_unless_somebody_says_where() -> None:
    assert of() is None
    assert of(sample=1.0) is None
    assert of({"OTEL_TRACES_SAMPLER_ARG": "1"}) is None


def test_the_settings_are_enough() -> None:
    found = known(endpoint=URL)
    assert (found.url, found.sample, found.headers) == (URL, 0.01, ())
    assert dict(found.resource) == {"service.name": "modelyard-gateway"}


@pytest.mark.parametrize("base", ["http://otel:4318", "http://otel:4318/", "HTTPS://[::1]"])
def test_without_a_path_the_usual_one_is_meant(base: str) -> None:
    assert known(endpoint=base).url == base.rstrip("/") + "/v1/traces"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318"}, "http://otel:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel/x/"}, "http://otel/x/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://otel/mine"}, "http://otel/mine"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/t",
            },
            "http://b/t",
        ),
    ],
)
def test_the_variables_say_where(environment: dict[str, str], url: str) -> None:
    assert known(environment).url == url
    assert known(environment, endpoint=URL).url == URL  # the settings come first


@pytest.mark.parametrize(
    "more",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_variables_that_mean_no_spans_of_this_kind(more: dict[str, str]) -> None:
    assert of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4317"} | more) is None


@pytest.mark.parametrize(
    ("environment", "sample"),
    [
        ({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_TRACES_SAMPLER_ARG": "1"}, 0.0),
    ],
)
def test_the_share_may_come_from_the_variables(environment: dict[str, str], sample: float) -> None:
    assert known(environment, endpoint=URL).sample == sample
    assert known(environment, endpoint=URL, sample=0.5).sample == 0.5


def test_headers_come_from_variables_and_ours_win() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20theirs, x-team = blue",
        "TOKEN": "Bearer ours",
    }
    assert dict(known(environment, endpoint=URL).headers) == {
        "authorization": "Bearer theirs", "x-team": "blue",
    }  # fmt: skip
    headers = dict(known(environment, endpoint=URL, headers_env={"authorization": "TOKEN"}).headers)
    assert headers == {"authorization": "Bearer ours", "x-team": "blue"}


def test_who_sends_may_be_named() -> None:
    found = known(
        {"OTEL_SERVICE_NAME": "edge", "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,zone=a%20b"},
        endpoint=URL,
    )
    assert dict(found.resource) == {"service.name": "edge", "zone": "a b"}


@pytest.mark.parametrize(
    ("options", "environment", "words", "next_step"),
    [
        ({"endpoint": "localhost:4318"}, {}, "telemetry.traces.endpoint", "/v1/traces"),
        ({"endpoint": "grpc://h:4317"}, {}, "telemetry.traces.endpoint", "4318"),
        ({"endpoint": "http://h:70000/v1/traces"}, {}, "telemetry.traces.endpoint", "http"),
        ({"endpoint": "http://u:hunter2@h/v1/traces"}, {}, "endpoint", "headers_env"),
        ({"endpoint": "http://h/v1?key=hunter2"}, {}, "endpoint", "headers_env"),
        ({"endpoint": "http://h/a b"}, {}, "endpoint", "http"),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "otel"}, "OTEL_EXPORTER_OTLP_ENDPOINT", "http"),
        ({"endpoint": URL}, {"OTEL_TRACES_SAMPLER_ARG": "1 %"}, "SAMPLER_ARG", "0 to 1"),
        ({"endpoint": URL}, {"OTEL_TRACES_SAMPLER_ARG": "1.5"}, "SAMPLER_ARG", "0 to 1"),
        ({"endpoint": URL}, {"OTEL_TRACES_SAMPLER_ARG": "nan"}, "SAMPLER_ARG", "0 to 1"),
        ({"endpoint": URL, "headers_env": {"a": "B"}}, {}, "variable B is empty", "set it"),
        ({"endpoint": URL, "headers_env": {"a b": "B"}}, {"B": "x"}, "'a b'", "authorization"),
        ({"endpoint": URL, "headers_env": {"host": "B"}}, {"B": "x"}, "'host'", "authorization"),
        ({"endpoint": URL, "headers_env": {"a": "hun ter2"}}, {}, "headers_env.a", "never"),
        ({"endpoint": URL, "headers_env": {"a": "B"}}, {"B": "hunter2\nx: y"}, "'a'", "mend"),
        ({"endpoint": URL}, {"OTEL_EXPORTER_OTLP_HEADERS": "a=hunter2%0A"}, "'a'", "mend"),
        ({"endpoint": URL}, {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no"}, "/no", "PEM"),
    ],
)
def test_a_mistake_is_refused_without_a_secret_in_it(
    options: dict[str, object], environment: dict[str, str], words: str, next_step: str
) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        of(environment, **options)
    assert words in refusal.value.message
    assert next_step in refusal.value.next_step
    assert "hunter2" not in refusal.value.message + refusal.value.next_step


def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    environment = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    assert known(environment, endpoint=URL).ca_file == str(tmp_path / "ca.pem")
