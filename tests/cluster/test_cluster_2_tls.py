"""Mutual TLS between pods: who gets in, and certificates that change while people chat."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from services.runtime.certificates import read_authority, service_certificate
from tests.cluster.conftest import SERVICES
from tests.cluster.kube import Namespace
from tests.cluster.load import POD, chatting

pytestmark = pytest.mark.asyncio(loop_scope="session")
# The node brings a changed Secret to its pods within a minute or two.
PATIENCE_S = 400.0
# Whom routing may call, and where.
PORTS = {"auth": 7411, "memory": 7412, "models": 7413}
# What becomes of a health check: in plain text, and with the certificate of the pod if it has one.
ASK = """
import asyncio, os, pathlib, sys
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from services.runtime.certificate_files import files_in
from services.runtime.tls import channel_credentials, channel_options

async def ask(channel):
    async with channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check
            await check(health_pb2.HealthCheckRequest(), timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"

async def main(service, address):
    said = [await ask(grpc.aio.insecure_channel(address))]
    folder = pathlib.Path("/mesh-tls")
    if folder.exists():
        credentials = channel_credentials(files_in(folder).current)
        options = channel_options(os.environ["ECHOMESH_MESH_TRUST_DOMAIN"], service)
        said.append(await ask(grpc.aio.secure_channel(address, credentials, options=options)))
    print(*said)

asyncio.run(main(*sys.argv[1:]))
"""
# The certificates that listeners show.
SHOWN = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), 10) as plain:
        with context.wrap_socket(plain) as secure:
            print(ssl.DER_cert_to_PEM_cert(secure.getpeercert(True)).replace("\\n", ""))
"""


async def test_only_pods_with_a_certificate_reach_a_mesh_listener(mesh: Namespace) -> None:
    (routing, *_) = await mesh.ready("routing")
    for service, port in PORTS.items():
        address = f"echomesh-{service}-mesh.{mesh.name}.svc:{port}"
        assert await mesh.python(routing, ASK, service, address) == "UNAVAILABLE OK\n"
        stranger = await mesh.python(POD, ASK, service, address)
        assert stranger in ("UNAVAILABLE\n", "DEADLINE_EXCEEDED\n")


async def _sign_anew(mesh: Namespace) -> dict[str, str]:
    """New certificates of the release's authority, put into its Secret; PEM by service."""
    kept = await mesh.secret("echomesh-keys")
    domain, now = f"echomesh.{mesh.name}", datetime.now(UTC)
    authority = read_authority(kept["mesh-ca.crt"].encode(), kept["mesh-ca.key"].encode(), now)
    made = {}
    data = {}
    for service in SERVICES:
        pem = service_certificate(authority, service, domain, now, timedelta(days=30))
        made[service] = pem.cert.decode().replace("\n", "")
        data[f"{service}.tls.crt"] = pem.cert.decode()
        data[f"{service}.tls.key"] = pem.key.decode()
    patch = json.dumps({"stringData": data})
    words = ("secret", "echomesh-keys", "--type=merge", "--patch-file=/dev/stdin")
    await mesh.kubectl("patch", *words, given=patch)
    return made


async def _shown(mesh: Namespace, routing: str) -> dict[str, set[str]]:
    """The certificates that the pods show whom routing calls, by service."""
    found: dict[str, set[str]] = {}
    for service, port in PORTS.items():
        pods = await mesh.pods(service)
        addresses = [f"{pod['status']['podIP']}:{port}" for pod in pods]
        found[service] = set((await mesh.python(routing, SHOWN, *addresses)).split("\n")) - {""}
    return found


async def test_new_certificates_are_taken_while_people_chat_and_cost_nothing(
    mesh: Namespace,
) -> None:
    (routing, *_) = await mesh.ready("routing")
    async with chatting(mesh, "certificates") as load:
        made = await _sign_anew(mesh)
        started = time.monotonic()
        wanted = {service: {made[service]} for service in PORTS}
        while await _shown(mesh, routing) != wanted:
            assert time.monotonic() - started < PATIENCE_S, "the pods show old certificates"
            await asyncio.sleep(3)
        print(f"\nnew certificates after {time.monotonic() - started:.0f} s")
        # Longer than connections last, so that all are made anew with them.
        await load.goes_on(60)
        await load.is_whole()
    await load.assert_promises(mesh)
