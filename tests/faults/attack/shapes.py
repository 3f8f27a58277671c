"""Random messages built from descriptors, and mutations of their bytes."""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.internal import encoder
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

F = FieldDescriptor

MAX_DEPTH = 4
MAX_BYTES = 200_000
"""Mutations that grow stop here; what is larger than a message may be has a test of its own."""

_ODD = (
    "",
    "a",
    "Where is my locker key?",
    "\x00",
    "before\x00after",
    "\n\r\t\x1b[31m",
    "%s%n%x{0}{}$(id)`id`",
    "'; drop table memory.messages; --",
    "../../etc/passwd",
    "\u202eright to left",
    "e\u0301\u0301\u0301",
    "\U0010ffff\uffff\ufeff",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "NaN",
    "1e999",
    "null",
)
_LARGE = (
    "[" * 5_000,
    '{"a":' * 2_000,
    '{"type": "object", "properties": {"a": {"$ref": "#"}}}',
    "9" * 5_000,
    "x" * 70_000,
    "word " * 3_000,
)
_FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e308, -1e308, 1e-320, float("inf"), float("nan"))
_SIGNED = (0, 1, -1, 2, 7, 50, 500, -(2**31), 2**31 - 1)
_WIDE = (*_SIGNED, -(2**63), 2**63 - 1, 253402300799, 253402300800, -62135596801, 2**53 + 1)
_INTS = {F.CPPTYPE_INT32: _SIGNED, F.CPPTYPE_INT64: _WIDE}
_UNSIGNED = (0, 1, 2**32 - 1)
# A nested length-delimited field, a group that never ends, a field number of zero.
_TAILS = (b"\x0b", b"\x00", b"\x07", b"\xff" * 11, b"\x0a\xff\xff\xff\xff\x0f", b"\x0c")


class Shapes:
    """Makes requests from a seed. `ids` are texts that stand for something in the mesh."""

    def __init__(self, seed: int, ids: Sequence[str] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a seed makes a failure repeatable
        self._ids = [*ids, str(uuid.UUID(int=seed % 2**64)), "nobody"]

    def request(self, descriptor: Descriptor) -> bytes:
        """A request of this type: as a client would send it, odd, or broken."""
        polite = self._random.random() < 0.6
        data = self.message(descriptor, polite=polite).SerializeToString()
        while self._random.random() < 0.3:
            data = self.mutated(data)
        return data[:MAX_BYTES]

    def message(self, descriptor: Descriptor, *, polite: bool, depth: int = 0) -> Message:
        """A message with random fields; a polite one keeps to what is usually allowed."""
        made: Message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if depth < MAX_DEPTH and self._random.random() < (0.85 if polite else 0.6):
                self._fill(made, field, polite, depth)
        return made

    def mutated(self, data: bytes) -> bytes:
        """The bytes with one thing wrong."""
        mutation: Callable[[bytes], bytes] = self._random.choice(
            (self._flip, self._cut, self._double, self._insert, self._odd_length, self._append)
        )
        return mutation(data)

    def _fill(self, made: Message, field: FieldDescriptor, polite: bool, depth: int) -> None:
        if field.message_type and field.message_type.GetOptions().map_entry:
            self._fill_map(made, field, polite, depth)
        elif field.is_repeated:
            most = 3 if polite else self._random.choice((0, 1, 5, 70))
            target = getattr(made, field.name)
            for _ in range(self._random.randint(0, most)):
                target.append(self._value(field, polite, depth))
        elif field.message_type:
            getattr(made, field.name).CopyFrom(self._value(field, polite, depth))
        else:
            setattr(made, field.name, self._value(field, polite, depth))

    def _fill_map(self, made: Message, field: FieldDescriptor, polite: bool, depth: int) -> None:
        keys, values = (field.message_type.fields_by_name[n] for n in ("key", "value"))
        for _ in range(self._random.randint(0, 2 if polite else 40)):
            key = self._value(keys, polite, depth + 1)
            getattr(made, field.name)[key] = self._value(values, polite, depth + 1)

    def _value(self, field: FieldDescriptor, polite: bool, depth: int) -> Any:
        if field.message_type:
            return self.message(field.message_type, polite=polite, depth=depth + 1)
        kind = field.cpp_type
        if kind == F.CPPTYPE_STRING:
            return self._bytes(polite) if field.type == F.TYPE_BYTES else self._text(field, polite)
        if kind == F.CPPTYPE_ENUM:
            return self._random.choice(
                (*field.enum_type.values_by_number, *(() if polite else (99,)))
            )
        if kind == F.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        if kind in (F.CPPTYPE_FLOAT, F.CPPTYPE_DOUBLE):
            return self._random.choice((0.0, 0.5, 1.0) if polite else _FLOATS)
        # Rules bound most numbers, but not those inside a Timestamp or a Duration.
        modest = polite and self._random.random() < 0.8
        return self._random.choice((0, 1, 5) if modest else _INTS.get(kind, _UNSIGNED))

    def _text(self, field: FieldDescriptor, polite: bool) -> str:
        names_something = field.name.endswith(("id", "ids", "token", "path", "paths"))
        if names_something and self._random.random() < 0.8:
            return self._random.choice(self._ids)
        if polite and self._random.random() < 0.8:
            return self._random.choice(("alice", "What did I say?", "text", "{}", "t" * 20))
        return self._random.choice(_ODD if polite else (*_ODD, *_LARGE))

    def _bytes(self, polite: bool) -> bytes:
        return self._random.randbytes(32 if polite else self._random.choice((0, 1, 31, 9_000)))

    def _place(self, data: bytes) -> int:
        return self._random.randint(0, len(data))

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 4) if data else 0):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._place(data)]

    def _double(self, data: bytes) -> bytes:
        start = self._place(data)
        return data + data[start:] * self._random.choice((1, 2, 30))

    def _insert(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + self._random.randbytes(self._random.randint(1, 9)) + data[place:]

    def _odd_length(self, data: bytes) -> bytes:
        """A length-delimited field whose length is a lie, or whose text is not UTF-8."""
        number = self._random.randint(1, 20)
        tag = encoder.TagBytes(number, 2)
        length = self._random.choice((0, 1, 5, 127, 2**31 - 1, 2**32))
        varint = bytearray()
        while length > 127:
            varint.append(length & 127 | 128)
            length >>= 7
        return data + tag + bytes(varint) + bytes([length]) + b"\xc3\x28\xed\xa0\x80"[:5]

    def _append(self, data: bytes) -> bytes:
        number = self._random.randint(1, 536_870_911)
        unknown = encoder.TagBytes(number, 1) + struct.pack("<d", self._random.random())
        nested = b"\x0a\x02" * self._random.choice((1, 60, 3_000))
        return data + self._random.choice((unknown, nested, *_TAILS))
