"""A mesh with mutual TLS on this machine: who gets in, and certificates made anew while it runs."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from cryptography import x509

from echomesh import Client, Final
from services.cli.health import Answer, MeshTls, ask_health, own_certificate
from services.cli.plan import SERVICES, Layout
from services.runtime.certificates import new_authority
from tests.support.certified import issued, now, shown_certificate
from tests.support.mesh import RunningMesh, echomesh, running_mesh

PATIENCE_S = 120.0


def _checked(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


async def _chats(client: Client, over: asyncio.Event) -> list[Final]:
    """Ask one question after the other until it is over; again where it is not known if it is kept.

    That is so where the commit takes longer than a second.
    """
    finals: list[Final] = []
    unknown = True
    while unknown or not over.is_set():
        asked = {"conversation_id": "certs", "request_id": str(len(finals))}
        _, final = await client.reply("Where is my bicycle?", **asked)
        unknown = final.reply_stored == "unknown"
        if not unknown:
            finals.append(final)
    return finals


async def _until_shown(mesh: RunningMesh, name: str) -> None:
    """Wait until a service shows the certificate that lies in its folder."""
    folder = Layout(mesh.data).certs / name
    async with asyncio.timeout(PATIENCE_S):
        while True:
            lies = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
            shown = await shown_certificate(mesh.file.services[name])
            if x509.load_pem_x509_certificate(shown.encode()) == lies:
                return
            await asyncio.sleep(0.1)


async def test_a_mesh_with_certificates_lets_in_its_own_and_takes_new_ones_under_way(
    tmp_path: Path,
) -> None:
    """Only what `echomesh certs` signed reaches a mesh listener; signing anew loses no chat."""
    data = tmp_path / "data"
    _checked(echomesh("certs", "--data", str(data)))
    with running_mesh(data) as mesh:
        _checked(echomesh("doctor", "--data", str(data)))
        own = own_certificate(Layout(data)).current
        stranger = issued(new_authority(now()), "routing")
        for name in SERVICES:
            address = mesh.file.services[name]
            assert await ask_health(address, 30.0) is Answer.AWAY
            assert await ask_health(address, 30.0, MeshTls(stranger, name)) is Answer.AWAY
            assert await ask_health(address, 30.0, MeshTls(own, name)) is Answer.SERVING

        over = asyncio.Event()
        async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as client:
            await client.remember("My bicycle is in the shed.")
            chats = asyncio.create_task(_chats(client, over))
            _checked(await asyncio.to_thread(echomesh, "certs", "--data", str(data)))
            for name in SERVICES:
                await _until_shown(mesh, name)
            over.set()
            finals = await chats
            kept = [message.role async for message in client.messages("certs")]
        assert own_certificate(Layout(data)).current != own
        assert kept == ["user", "assistant"] * len(finals)
        for final in finals:
            assert (final.message_stored, final.reply_stored) == ("stored", "stored")
