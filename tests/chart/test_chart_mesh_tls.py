"""Mutual TLS in the chart: each pod has its own certificate, by whichever way it is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import (
    SERVICES,
    containers,
    environment,
    merged,
    objects,
    of_kind,
    pods,
    profile,
)

DEMO = profile("demo")
CERT_MANAGER = merged(DEMO, {"meshTls": {"mode": "cert-manager"}})
JOB = merged(DEMO, {"meshTls": {"mode": "job"}})
DOMAIN = "echomesh.mesh"


def _volume(found: list[dict[str, Any]], service: str) -> dict[str, Any]:
    workload = of_kind(found, "Deployment", "StatefulSet")[service]
    spec = workload["spec"]["template"]["spec"]
    return next(v["secret"] for v in spec["volumes"] if v["name"] == "mesh-tls")


def _items(secret: dict[str, Any]) -> dict[str, str]:
    return {item["path"]: item["key"] for item in secret["items"]}


def test_without_the_switch_no_pod_speaks_it() -> None:
    found = objects(DEMO)
    assert not of_kind(found, "Certificate", "Issuer")
    for service in SERVICES:
        assert not {"ECHOMESH_MESH_TLS_DIR", "ECHOMESH_MESH_TRUST_DOMAIN"} & set(
            environment(found, service)
        )
    assert all(v["name"] != "mesh-tls" for _, pod in pods(found) for v in pod.get("volumes", ()))


@pytest.mark.parametrize("values", [CERT_MANAGER, JOB], ids=["cert-manager", "job"])
def test_every_service_mounts_its_own_certificate_and_no_other(values: dict[str, Any]) -> None:
    found = objects(values)
    for service in SERVICES:
        told = environment(found, service)
        assert told["ECHOMESH_MESH_TLS_DIR"] == "/mesh-tls"
        assert told["ECHOMESH_MESH_TRUST_DOMAIN"] == DOMAIN
        secret = _volume(found, service)
        assert set(_items(secret)) == {"tls.crt", "tls.key", "ca.crt"}
        if values is JOB:
            assert secret["secretName"] == "echomesh-keys"
            assert _items(secret)["tls.key"] == f"{service}.tls.key"
        else:
            assert secret["secretName"] == f"echomesh-{service}-mesh-tls"
        mounts = of_kind(found, "Deployment", "StatefulSet")[service]["spec"]["template"]["spec"]
        (container,) = mounts["containers"]
        assert {"name": "mesh-tls", "mountPath": "/mesh-tls", "readOnly": True} in container[
            "volumeMounts"
        ]


def test_a_certificate_names_its_service_by_dns_and_by_spiffe_id() -> None:
    certificates = of_kind(objects(CERT_MANAGER), "Certificate")
    assert set(certificates) == {"mesh-ca", *(f"{service}-mesh" for service in SERVICES)}
    for service in SERVICES:
        spec = certificates[f"{service}-mesh"]["spec"]
        assert spec["dnsNames"] == [f"{service}.{DOMAIN}"]
        assert spec["uris"] == [f"spiffe://{DOMAIN}/{service}"]
        assert spec["secretName"] == f"echomesh-{service}-mesh-tls"
        assert {"server auth", "client auth"} <= set(spec["usages"])
        assert spec["issuerRef"] == {"kind": "Issuer", "name": "echomesh-mesh"}


def test_a_renewed_authority_keeps_its_key() -> None:
    """Else services renewed since would not trust those that are renewed later, for weeks."""
    spec = of_kind(objects(CERT_MANAGER), "Certificate")["mesh-ca"]["spec"]
    assert spec["privateKey"]["rotationPolicy"] == "Never"


def test_an_issuer_of_ones_own_takes_the_place_of_the_releases_authority() -> None:
    issuer = {"name": "company", "kind": "ClusterIssuer"}
    found = objects(merged(CERT_MANAGER, {"meshTls": {"issuerRef": issuer}}))
    assert not of_kind(found, "Issuer")
    certificates = of_kind(found, "Certificate")
    assert set(certificates) == {f"{service}-mesh" for service in SERVICES}
    for one in certificates.values():
        assert one["spec"]["issuerRef"] == {**issuer, "group": "cert-manager.io"}


def test_the_job_signs_only_where_it_is_to() -> None:
    def arguments(values: dict[str, Any]) -> list[str]:
        jobs = [pod for name, pod in pods(objects(values)) if name.startswith("echomesh-keys-")]
        return [argument for pod in jobs for c in containers(pod) for argument in c["args"]]

    assert f"--certificates={DOMAIN}" in arguments(JOB)
    for values in (DEMO, CERT_MANAGER):
        assert not any(argument.startswith("--certificates") for argument in arguments(values))
        assert "prepare" in arguments(values)


@pytest.mark.parametrize("values", [DEMO, JOB], ids=["plain", "mutual"])
def test_services_say_what_their_mesh_port_speaks(values: dict[str, Any]) -> None:
    wanted = "https" if values is JOB else "kubernetes.io/h2c"
    for service in SERVICES:
        port = of_kind(objects(values), "Service")[f"{service}-mesh"]["spec"]["ports"][0]
        assert (port["name"], port["appProtocol"]) == ("grpc-mesh", wanted)
