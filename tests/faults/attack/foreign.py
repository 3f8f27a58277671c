"""Foreign ids in every id field of every RPC: nobody learns or changes what is not theirs.

    python -m tests.faults.attack.foreign --probes 100000 [--seed 1]

starts a mesh of its own in a temporary folder and ends with 1 if anything leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from echomesh import Client
from echomesh._session import Deadline
from tests.faults.attack.answers import Answer, defects
from tests.faults.attack.rpcs import CALL_S, Caller, Rpc, all_rpcs
from tests.faults.attack.victims import PASSWORD, WORDS, Victim, World, make_world
from tests.support.mesh import RunningMesh, running_mesh

PARALLEL = 16
_SHOWN = 20
# These hash a password, run a model or a whole turn: they get a smaller share of the probes.
_COSTLY = {"Login", "CreateTenant", "CreateUser", "SetPassword", "Chat", "Generate", "Embed"}
_COSTLY_SHARE = 0.05
# An id that the mesh made: it is the victim's or nobody's, so a call with it cannot succeed.
_MADE_BY_MESH = {"message_id", "memory_id", "user_id"}
_NAMED_ID_ONLY = {"Memory", "RevokeApiKeyRequest"}
# Names that everybody chooses for themselves: another one's means one's own of that name.
_CHOSEN = {"conversation_id", "request_id", "page_token", "username", "external_user_id"}
# Parts of credentials that are known to others; the secret half is guessed.
_CREDENTIALS = {"api_key", "refresh_token"}


def is_strict(field_: FieldDescriptor) -> bool:
    """Whether a foreign value in this field must be refused."""
    named_id = field_.name == "id" and field_.containing_type.name in _NAMED_ID_ONLY
    return field_.name in _MADE_BY_MESH or named_id


def is_id(field_: FieldDescriptor) -> bool:
    """Whether this field says which thing is meant."""
    name = field_.name
    chosen = name in _CHOSEN or name in _CREDENTIALS or name.endswith(("_id", "_ids"))
    return is_strict(field_) or chosen or name == "id"


@dataclass
class Probe:
    """A request with foreign ids. `strict`: it must be refused."""

    request: Message
    sent: list[str] = field(default_factory=list)
    strict: bool = False


class Probes:
    """Builds valid requests in which ids are the victim's."""

    def __init__(self, victim: Victim, seed: int) -> None:
        self._victim = victim
        self._random = random.Random(seed)  # noqa: S311 - a seed makes a leak repeatable

    def next(self, rpcs: list[Rpc]) -> tuple[Rpc, Probe]:
        """The next probe, for any of the RPCs."""
        while True:
            rpc = self._random.choice(rpcs)
            if rpc.method.name not in _COSTLY or self._random.random() < _COSTLY_SHARE:
                return rpc, self.probe(rpc.method.input_type)

    def probe(self, descriptor: Descriptor) -> Probe:
        """A request of this type with the victim's ids in some or all of its id fields."""
        probe = Probe(GetMessageClass(descriptor)())
        self._fill(probe, probe.request, strictly=True)
        return probe

    def _fill(self, probe: Probe, message: Message, *, strictly: bool) -> None:
        for field_ in message.DESCRIPTOR.fields:
            if field_.message_type and field_.message_type.GetOptions().map_entry:
                continue
            if is_id(field_) and (is_strict(field_) or self._random.random() < 0.8):
                self._set_foreign(probe, message, field_, strictly)
            elif field_.message_type:
                self._fill_inner(probe, message, field_)
            elif field_.is_repeated:
                getattr(message, field_.name).extend(_plain_list(field_))
            else:
                setattr(message, field_.name, self._plain(field_))

    def _fill_inner(self, probe: Probe, message: Message, field_: FieldDescriptor) -> None:
        name = field_.message_type.name
        if name == "FieldMask":
            getattr(message, field_.name).paths.append("text")
        elif field_.is_repeated:
            if field_.name not in {"tools", "tool_messages", "tool_calls"}:
                # What is in a list is evidence or new things: it cannot name an existing one.
                self._fill(probe, getattr(message, field_.name).add(), strictly=False)
        elif name in {"Memory", "NewMemory", "MemoryFilter"}:
            strictly = name == "Memory"
            self._fill(probe, getattr(message, field_.name), strictly=strictly)

    def _set_foreign(
        self, probe: Probe, message: Message, field_: FieldDescriptor, strictly: bool
    ) -> None:
        value = self._foreign(field_)
        probe.sent.append(value)
        if field_.is_repeated:
            getattr(message, field_.name).append(value)
            return
        setattr(message, field_.name, value)
        # In an UpdateMemory only the memory's own id says what is meant.
        inside = message.DESCRIPTOR.name == "Memory" and field_.name != "id"
        probe.strict = probe.strict or (strictly and is_strict(field_) and not inside)

    def _foreign(self, field_: FieldDescriptor) -> str:
        """A victim's id that belongs here, or mostly: of another kind, or written otherwise."""
        victim, name = self._victim, field_.name
        made = [i for ids in victim.ids.values() for i in ids]
        if name in _CREDENTIALS:
            return _credential(name, victim)
        if name in _CHOSEN:
            # A chosen name may be any; had it the text of an id, a later answer would show it.
            names = [n for all_ in victim.names.values() for n in all_]
            return self._random.choice(victim.names.get(name, names))
        fitting = victim.ids.get(
            name.removesuffix("s").removesuffix("_id").rpartition("_")[2], made
        )
        value = self._random.choice(fitting if self._random.random() < 0.7 else made)
        return self._written(value)

    def _written(self, value: str) -> str:
        if self._random.random() < 0.7:
            return value
        others = (value.upper(), value + " ", value.replace("-", ""), value[:-1] + "%", value[:8])
        return self._random.choice(others)

    def _plain(self, field_: FieldDescriptor) -> Any:
        """A value that passes validation and asks for what the victim keeps."""
        if field_.enum_type:
            return field_.enum_type.values[1].number
        if field_.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._plain_text(field_)
        if field_.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.7
        if field_.name == "epoch":
            return 1
        return field_.default_value

    def _plain_text(self, field_: FieldDescriptor) -> str | bytes:
        if field_.type == FieldDescriptor.TYPE_BYTES:
            return bytes(32)
        if field_.name in {"text", "query", "content"}:
            return f"What is the {self._random.choice(WORDS)} word?"
        if "password" in field_.name:
            return PASSWORD
        if field_.name.endswith("_json") or field_.name in {"model", "persona", "json_schema"}:
            return "{}" if field_.name.endswith(("_json", "schema")) else ""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def _credential(name: str, victim: Victim) -> str:
    """A guessed credential of the victim's: everything but the secret is right."""
    guess = secrets.token_urlsafe(32)
    if name == "api_key":
        return f"em_{victim.ids['key'][0]}_{guess}"
    return f"er_{victim.ids['tenant'][0]}_{guess}"


def _plain_list(field_: FieldDescriptor) -> list[Any]:
    if field_.enum_type:
        return [field_.enum_type.values[1].number]
    return ["What is the locker word?"] if field_.name == "texts" else []


@dataclass
class ProbeReport:
    """What came back, and every leak and every other defect."""

    probes: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def add(self, who: str, rpc: Rpc, probe: Probe, answer: Answer, victim: Victim) -> None:
        """Judge an answer."""
        self.probes += 1
        self.answers[answer.reason or answer.code.name] += 1
        where = f"{who} at {rpc} with {probe.sent}"
        if probe.strict and answer.code is grpc.StatusCode.OK:
            self.leaks.append(f"{where}: accepted")
        seen = answer.body + answer.text.encode()
        self.leaks += [f"{where}: {word!r}" for word in _told(who, probe, victim) if word in seen]
        self.found += [f"{where}: {defect}" for defect in defects(answer)]

    def __str__(self) -> str:
        lines = [f"{self.probes} probes in {self.seconds:.0f} s"]
        lines += [f"  {count:7d}  {name}" for name, count in self.answers.most_common()]
        lines += [f"{len(self.leaks)} leaks", *self.leaks[:_SHOWN]]
        lines += [f"{len(self.found)} other defects", *self.found[:_SHOWN]]
        return "\n".join(lines)


def _told(who: str, probe: Probe, victim: Victim) -> list[bytes]:
    """What this answer would tell its receiver: the victim's words, and ids they did not send."""
    kinds = [kind for kind in victim.ids if who != "neighbour" or kind != "tenant"]
    ids = [i for kind in kinds for i in victim.ids[kind]]
    sent = " ".join(probe.sent).lower()
    return [word.encode() for word in (*victim.secrets, *ids) if word not in sent]


async def attack(world: World, probes: int, *, seed: int = 1) -> ProbeReport:
    """Send the probes, each as one of the attackers."""
    report, caller, maker = ProbeReport(), Caller(world.mesh), Probes(world.victim, seed)
    rpcs, jobs = all_rpcs(), iter(range(probes))
    attackers = list(world.attackers.items())
    started = time.monotonic()

    async def worker() -> None:
        for job in jobs:
            who, client = attackers[job % len(attackers)]
            rpc, probe = maker.next(rpcs)
            token = await client._tokens.access_token(Deadline(CALL_S))
            answer = await caller.call(rpc, probe.request.SerializeToString(), token)
            report.add(who, rpc, probe, answer, world.victim)

    await asyncio.gather(*(worker() for _ in range(PARALLEL)))
    await caller.close()
    report.seconds = time.monotonic() - started
    return report


async def run(mesh: RunningMesh, probes: int, seed: int) -> tuple[ProbeReport, bool]:
    """Make the world and attack it; return also whether the victim has all that they had."""
    async with Client(mesh.file.address, api_key=mesh.credentials.api_key) as operator:
        world = await make_world(mesh, operator)
        before = await world.victim.state()
        report = await attack(world, probes, seed=seed)
        whole = before == await world.victim.state()
        await world.attackers["boss"].close()
    return report, whole


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Probe every RPC with foreign ids.")
    parser.add_argument("--probes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_mesh(Path(folder) / "data") as mesh:
        report, whole = asyncio.run(run(mesh, options.probes, options.seed))
    print(report)  # noqa: T201 - a command prints
    print("the victim's things are as they were" if whole else "CHANGED")  # noqa: T201
    return 1 if report.leaks or report.found or not whole else 0


if __name__ == "__main__":
    sys.exit(main())
