"""A value that cannot be meant is refused when it is given, with a line that says which."""

from __future__ import annotations

import helm_python as helm
import pytest

from tests.chart.rendering import Values, files, merged, profile

DEMO = profile("demo")
NO_DATABASE: Values = {"demo": {"postgres": {"enabled": False}}}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"replicas": 3}, "'replicas' not allowed"),
        ({"routing": {"replica": 3}}, "'replica' not allowed"),
        ({"memory": {"qdrant": {"adress": "x"}}}, "'adress' not allowed"),
        ({"demo": {"postgres": {"imag": "x"}}}, "'imag' not allowed"),
        ({"networkPolicy": {"egress": {"redis": {}}}}, "'redis' not allowed"),
        ({"routing": {"replicas": "three"}}, "/routing/replicas"),
        ({"routing": {"replicas": -1}}, "/routing/replicas"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"auth": {"image": {"digest": "sha256:x"}}}, "/auth/image/digest"),
        ({"routing": {"settings": {"Max-Turns": 1}}}, "Max-Turns"),
        ({"memory": {"qdrant": {"url": "qdrant:6334"}}}, "/memory/qdrant/url"),
        ({"memory": {"persistence": {"size": "lots"}}}, "/memory/persistence/size"),
        ({"models": {"upstreams": [{"uri": "x"}]}}, "url"),
        ({"models": {"upstreams": [{"url": "http://x/v1", "api_key": "s"}]}}, "api_key"),
        ({"models": {"upstreams": [{"url": "https://u:s@x/v1"}]}}, "/models/upstreams/0/url"),
        ({"models": {"settings": {"upstreams": [{"api_key": "s"}]}}}, "upstreams"),
        ({"settings": {"upstream_api_key": "s"}}, "upstream_api_key"),
        ({"public": {"port": 70000}}, "/public/port"),
        ({"stopGraceSeconds": 0}, "/stopGraceSeconds"),
        ({"tracing": {"endpoint": 4317}}, "/tracing/endpoint"),
        ({"meshTls": {"mode": "linkerd"}}, "/meshTls/mode"),
        ({"meshTls": {"duration": "90d"}}, "/meshTls/duration"),
    ],
)
def test_a_value_that_the_schema_does_not_know_is_refused(wrong: Values, says: str) -> None:
    with pytest.raises(helm.HelmError, match=says):
        files(merged(DEMO, wrong))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (NO_DATABASE, "database: set one of"),
        ({"database": {"existingSecret": "x"}}, "database: set one of"),
        (
            merged(
                NO_DATABASE, {"database": {"existingSecret": "a", "adminSecret": {"name": "b"}}}
            ),
            "database: set one of",
        ),
        ({"keys": {"existingSecret": "x"}}, "keys.existingSecret"),
        ({"public": {"plaintext": False}}, "public.tls.secretName"),
        (
            {
                "meshTls": {"mode": "job"},
                "keys": {"existingSecret": "k"},
                "database": {"existingSecret": "d"},
                "demo": {"postgres": {"enabled": False}},
            },
            "meshTls.mode",
        ),
        ({"public": {"gateway": {"enabled": True}}}, "public.host"),
        ({"public": {"ingress": {"enabled": True}}}, "public.host"),
        ({"database": {"pooled": True}}, "database.pooled"),
        (
            {
                "public": {
                    "host": "a.example.com",
                    "gateway": {"enabled": True},
                    "tls": {"secretName": "x"},
                }
            },
            "public.gateway",
        ),
        ({"memory": {"replicas": 2}}, "memory.qdrant.url"),
        ({"memory": {"autoscaling": {"enabled": True}}}, "memory.qdrant.url"),
        (
            {"routing": {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}},
            "exclude each other",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_refused(wrong: Values, says: str) -> None:
    with pytest.raises(helm.HelmRenderError, match=says):
        files(merged(DEMO, wrong))
