"""What every RPC must declare. A new RPC that forgets one of these fails here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor

from echomesh.common.v1 import options_pb2
from tests.support.contracts import access, methods, path

PUBLIC = {
    "/echomesh.auth.v1.AuthService/ExchangeApiKey",
    "/echomesh.auth.v1.AuthService/GetJwks",
    "/echomesh.auth.v1.AuthService/Login",
    "/echomesh.auth.v1.AuthService/Logout",
    "/echomesh.auth.v1.AuthService/Refresh",
    "/echomesh.routing.v1.MeshService/GetEndpoints",
}
ALL = methods()


@pytest.mark.parametrize("method", ALL, ids=path)
def test_every_rpc_has_an_access_policy(method: MethodDescriptor) -> None:
    assert access(method) != options_pb2.ACCESS_UNSPECIFIED


def test_only_the_declared_rpcs_are_public() -> None:
    assert {path(m) for m in ALL if access(m) == options_pb2.ACCESS_PUBLIC} == PUBLIC


@pytest.mark.parametrize("method", ALL, ids=path)
def test_a_write_that_may_be_repeated_is_idempotent(method: MethodDescriptor) -> None:
    """It carries a request_id, or doing it twice is doing it once by its nature."""
    retry = method.GetOptions().Extensions[options_pb2.retry]
    if not retry.idempotent or not re.match(r"Create|Begin|Complete|Update|Remember", method.name):
        return
    fields = set(method.input_type.fields_by_name)
    nested = {
        name
        for field in method.input_type.fields
        if field.message_type is not None
        for name in field.message_type.fields_by_name
    }
    assert "request_id" in fields | nested


@pytest.mark.parametrize("method", ALL, ids=path)
def test_lists_page_by_token(method: MethodDescriptor) -> None:
    if not method.name.startswith("List"):
        return
    repeated = [f for f in method.output_type.fields if f.is_repeated]
    bounded = {"ListModels", "ListMemoryVersions"}
    assert repeated
    assert method.name in bounded or "next_page_token" in method.output_type.fields_by_name


def test_no_deadline_tenant_or_user_is_ever_a_field_of_a_request() -> None:
    forbidden = {"deadline", "timeout", "tenant_id"}
    for method in ALL:
        if "worker" in path(method):
            continue
        assert not forbidden & set(method.input_type.fields_by_name), path(method)


def test_every_error_reason_is_documented_with_its_code_and_an_example() -> None:
    text = (Path(__file__).parents[2] / "protos/echomesh/common/v1/errors.proto").read_text()
    for comment, name in re.findall(r"((?:  // .*\n)+)  (ERROR_REASON_\w+) = ", text):
        assert re.search(r"// [A-Z_]+[. ]", comment), name
        assert f'"reason": "{name.removeprefix("ERROR_REASON_")}"' in comment, name
