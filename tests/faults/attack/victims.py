"""Two tenants, people in them, and what one of them keeps that nobody else may ever see."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from echomesh import Client
from echomesh._session import Deadline
from echomesh.auth.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from echomesh.memory.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
)
from services.runtime.settings import local_address
from tests.support.mesh import RunningMesh

PASSWORD = "correct horse battery"
WORDS = ("locker", "sister", "allergic", "birthday", "garden")


@dataclass
class Victim:
    """Somebody's things. `ids` were made by the mesh, `names` by the victim's application."""

    client: Client
    ids: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    key: str = ""

    async def state(self) -> list[str]:
        """All that the victim has, to be compared with what they have later."""
        things: list[object] = [m async for m in self.client.memories()]
        for name in self.names["conversation_id"]:
            things += [m async for m in self.client.messages(name)]
        return sorted(map(repr, things))


@dataclass(frozen=True)
class World:
    """The victim, and by name the tokens of those who are not the victim."""

    mesh: RunningMesh
    victim: Victim
    attackers: Mapping[str, Client]


async def make_world(mesh: RunningMesh, operator: Client) -> World:
    """A victim in the first tenant; a neighbour there, and a user and a boss of another tenant.

    The neighbour has the role `user` alone. The boss has every role that a tenant can give.
    """
    victim = await _victim(mesh, operator.as_user(f"victim-{uuid.uuid4()}"))
    await _accounts(mesh, operator, victim)
    other_key = await make_tenant(mesh, operator, f"other-{uuid.uuid4()}")
    boss = Client(mesh.file.address, api_key=other_key)
    attackers = {
        "neighbour": operator.as_user(f"neighbour-{uuid.uuid4()}"),
        "stranger": boss.as_user("stranger"),
        "boss": boss,
    }
    return World(mesh, victim, attackers)


async def _victim(mesh: RunningMesh, client: Client) -> Victim:
    victim = Victim(client)
    victim.secrets = [f"zq{secrets.token_hex(6)}" for _ in WORDS]
    facts = [f"The {word} word is {s}." for word, s in zip(WORDS, victim.secrets, strict=True)]
    memories = [await client.remember(fact) for fact in facts]
    name, turn = f"diary-{uuid.uuid4()}", f"turn-{uuid.uuid4()}"
    await client.reply(facts[0], conversation_id=name, request_id=turn)
    messages = [m async for m in client.messages(name)]
    victim.ids["memory"] = [memory.id for memory in memories]
    victim.ids["message"] = [message.id for message in messages]
    victim.names["conversation_id"] = [name]
    victim.names["request_id"] = [turn]
    victim.names["page_token"] = await _page_tokens(mesh, client, name)
    return victim


async def _page_tokens(mesh: RunningMesh, client: Client, conversation: str) -> list[str]:
    """Tokens of the victim's second pages."""
    metadata = await bearer(client)
    address = local_address("memory", "public", mesh.port_base)
    async with grpc.aio.insecure_channel(address) as channel:
        said = await conversation_pb2_grpc.ConversationServiceStub(channel).ListMessages(
            conversation_pb2.ListMessagesRequest(conversation_id=conversation, page_size=1),
            metadata=metadata,
        )
        kept = await memory_pb2_grpc.MemoryServiceStub(channel).ListMemories(
            memory_pb2.ListMemoriesRequest(page_size=1), metadata=metadata
        )
    return [said.next_page_token, kept.next_page_token]


async def _accounts(mesh: RunningMesh, operator: Client, victim: Victim) -> None:
    """The victim's tenant: a user with a password, and a key."""
    address = local_address("auth", "public", mesh.port_base)
    metadata = await bearer(operator)
    name = f"account-{uuid.uuid4()}"
    async with grpc.aio.insecure_channel(address) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        user = await stub.CreateUser(
            admin_pb2.CreateUserRequest(request_id=name, username=name, password=PASSWORD),
            metadata=metadata,
        )
        key = await stub.CreateApiKey(
            admin_pb2.CreateApiKeyRequest(name=name, user_id=user.user.id), metadata=metadata
        )
        page = await stub.ListUsers(admin_pb2.ListUsersRequest(page_size=1), metadata=metadata)
    me = await whoami(mesh, victim.client)
    victim.ids["user"] = [user.user.id, me.user_id]
    victim.ids["key"], victim.key = [key.api_key.id], key.secret
    victim.ids["tenant"] = [me.tenant_id]
    victim.names["username"] = [name]
    victim.names["page_token"].append(page.next_page_token)
    # From the front: the secret is base64url, and so may hold underscores of its own.
    victim.secrets.append(key.secret.split("_", 2)[2])


async def whoami(mesh: RunningMesh, client: Client) -> auth_pb2.WhoAmIResponse:
    """Whom a client's token names."""
    address = local_address("auth", "public", mesh.port_base)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        answer: auth_pb2.WhoAmIResponse = await stub.WhoAmI(
            auth_pb2.WhoAmIRequest(), metadata=await bearer(client), timeout=10
        )
    return answer


async def bearer(client: Client) -> list[tuple[str, str]]:
    """The metadata of a bare call of this client."""
    token = await client._tokens.access_token(Deadline(10))
    return [("authorization", f"Bearer {token}")]


async def make_tenant(mesh: RunningMesh, operator: Client, name: str) -> str:
    """Make a tenant, sign in as its administrator, and return a key of theirs."""
    address = local_address("auth", "public", mesh.port_base)
    async with grpc.aio.insecure_channel(address) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        made = await admin.CreateTenant(
            admin_pb2.CreateTenantRequest(
                request_id=name, name=name, admin_username="boss", admin_password=PASSWORD
            ),
            metadata=await bearer(operator),
            timeout=10,
        )
        login = auth_pb2.LoginRequest(tenant=name, username="boss", password=PASSWORD)
        signed_in = await auth_pb2_grpc.AuthServiceStub(channel).Login(login, timeout=10)
        key = await admin.CreateApiKey(
            admin_pb2.CreateApiKeyRequest(name="app", user_id=made.admin.id),
            metadata=[("authorization", f"Bearer {signed_in.tokens.access_token}")],
            timeout=10,
        )
    return str(key.secret)
