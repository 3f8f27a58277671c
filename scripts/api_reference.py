"""Print docs/api.md: every RPC with its policy, and every message and enum, from the protos.

The comments come from the sources through `buf build`, so the reference cannot drift.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

from echomesh.common.v1 import options_pb2

ROOT = Path(__file__).resolve().parent.parent
_FIELD = descriptor_pb2.FieldDescriptorProto
# Field numbers of descriptor.proto, which make up the paths of comments.
_MESSAGE, _ENUM, _SERVICE, _ENTRY = 4, 5, 6, 2
_NESTED, _NESTED_ENUM = 3, 4


def main() -> None:
    """Read the image that buf builds and print the reference."""
    buf = Path(sys.executable).with_name("buf")
    image = subprocess.run(
        [str(buf), "build", "-o", "-#format=binpb"], cwd=ROOT, check=True, capture_output=True
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(image.stdout)
    print("# API reference\n\nGenerated from `protos/` by `make proto`; do not edit.")
    for file in files.file:
        if file.package.startswith("echomesh."):
            print("\n".join(Reference(file).lines()))


class Reference:
    """The part of the reference that one proto file gives."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
            if place.leading_comments
        }

    def lines(self) -> Iterator[str]:
        """The file's part, line by line."""
        yield f"\n## {self._file.name.removeprefix('echomesh/')}"
        for i, service in enumerate(self._file.service):
            yield from self._service(service, (_SERVICE, i))
        for i, message in enumerate(self._file.message_type):
            yield from self._message(message, (_MESSAGE, i))
        for i, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (_ENUM, i))

    def _comment(self, path: tuple[int, ...]) -> str:
        return self._comments.get(path, "").replace("|", "\\|")

    def _service(
        self, service: descriptor_pb2.ServiceDescriptorProto, path: tuple[int, ...]
    ) -> Iterator[str]:
        yield f"\n### {service.name}\n"
        if comment := self._comment(path):
            yield f"{comment}\n"
        yield "| RPC | access | tried again | |"
        yield "|---|---|---|---|"
        for i, method in enumerate(service.method):
            policy = method.options.Extensions[options_pb2.policy]
            retry = method.options.Extensions[options_pb2.retry]
            access = options_pb2.Access.Name(policy.access).removeprefix("ACCESS_").lower()
            callers = f" ({', '.join(policy.callers)})" if policy.callers else ""
            again = f"{retry.max_attempts} attempts" if retry.idempotent else "no"
            stream = " (stream)" if method.server_streaming else ""
            comment = self._comment((*path, _ENTRY, i))
            yield f"| `{method.name}`{stream} | {access}{callers} | {again} | {comment} |"

    def _message(
        self, message: descriptor_pb2.DescriptorProto, path: tuple[int, ...]
    ) -> Iterator[str]:
        if message.options.map_entry:
            return
        yield f"\n### {message.name}\n"
        if comment := self._comment(path):
            yield f"{comment}\n"
        if message.field:
            yield "| field | type | |"
            yield "|---|---|---|"
        for i, field in enumerate(message.field):
            yield f"| `{field.name}` | {_type(field)} | {self._comment((*path, _ENTRY, i))} |"
        for i, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*path, _NESTED, i))
        for i, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, _NESTED_ENUM, i))

    def _enum(
        self, enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...]
    ) -> Iterator[str]:
        yield f"\n### {enum.name}\n\n| value | number | |\n|---|---|---|"
        for i, value in enumerate(enum.value):
            comment = self._comment((*path, _ENTRY, i))
            yield f"| `{value.name}` | {value.number} | {comment} |"


def _type(field: descriptor_pb2.FieldDescriptorProto) -> str:
    """`repeated Memory`, `string`, ..."""
    if field.type_name:
        name = field.type_name.rpartition(".")[2]
        name = "map" if name.endswith("Entry") else name
    else:
        name = _FIELD.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {name}" if field.label == _FIELD.LABEL_REPEATED and name != "map" else name


if __name__ == "__main__":
    main()
