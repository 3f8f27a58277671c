"""From a call's metadata to the identity it runs as, by the method's policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from echomesh.common.v1.options_pb2 import ACCESS_USER
from services.runtime.deadline import MAX_DEADLINE_S
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity
from services.runtime.policy import Rule, check_caller, check_subject
from services.runtime.tls import PeerPolicy
from services.runtime.tokens import AssertionVerifier, TokenValidator

AUTHORIZATION = "authorization"
CALLER = "x-echomesh-caller"
_BEARER = "bearer "
# A service may hand a token on for this long after it expired: it was good when the user's call
# started, and that call lasts no longer; the rest is for what is stored at its end.
FORWARDED_PAST_EXPIRY_S = MAX_DEADLINE_S + 30.0


Presented = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Subject:
    """Whom a call runs as, and the token to hand on."""

    identity: Identity | None
    token: str | None = None


class Authenticator:
    """Applies policies on one listener.

    `verifier` is given on mesh listeners, where every call names its calling service; on public
    ones there is none, and methods for services are refused. With mutual TLS `peers` says whom
    the caller's certificate must name.
    """

    def __init__(
        self,
        validator: TokenValidator | None,
        verifier: AssertionVerifier | None,
        peers: PeerPolicy | None = None,
    ) -> None:
        self._validator = validator
        self._verifier = verifier
        self._peers = peers

    async def authenticate(
        self, rule: Rule, metadata: Mapping[str, str], presented: Presented = dict
    ) -> Subject:
        """The subject of a call; raises AppError if the policy refuses it.

        `presented` gives gRPC's auth context, with what the caller's certificate names.
        """
        if rule.public:
            return Subject(None)
        called_by = self._caller(rule, metadata)
        if self._peers is not None and called_by is not None:
            self._peers.check(called_by.caller, presented())
        token = _bearer(metadata)
        if token is not None:
            return await self._with_token(rule, token, called_by)
        return Subject(_without_token(rule, called_by))

    def _caller(self, rule: Rule, metadata: Mapping[str, str]) -> Identity | None:
        if self._verifier is None:
            if rule.internal:
                raise AppError(Reason.PERMISSION_DENIED, "this call is for services of the mesh")
            return None
        assertion = metadata.get(CALLER)
        if assertion is None:
            raise AppError(Reason.CALLER_INVALID, "a service must name itself")
        called_by = self._verifier.verify(assertion)
        if rule.internal:
            check_caller(rule, called_by.caller)
        return called_by

    async def _with_token(self, rule: Rule, token: str, called_by: Identity | None) -> Subject:
        if self._validator is None:
            raise AppError(Reason.TOKEN_INVALID, "tokens are not accepted here")
        past_expiry_s = _past_expiry_s(rule, forwarded=called_by is not None)
        identity = await self._validator.validate(token, past_expiry_s=past_expiry_s)
        if not rule.internal:
            check_subject(rule, identity)
        if called_by is not None:
            identity = replace(identity, caller=called_by.caller)
        return Subject(identity, token)


def _past_expiry_s(rule: Rule, *, forwarded: bool) -> float:
    """What calls lead to inside the mesh may be late; what needs a role is never excused."""
    excused = forwarded and (rule.internal or rule.access == ACCESS_USER)
    return FORWARDED_PAST_EXPIRY_S if excused else 0.0


def _without_token(rule: Rule, called_by: Identity | None) -> Identity | None:
    """A service's own claim of whom it works for is enough only for internal methods."""
    if not rule.internal:
        raise AppError(Reason.TOKEN_MISSING, "this call needs an access token")
    if called_by is not None and called_by.user_id:
        return called_by
    if not rule.subject_optional:
        raise AppError(Reason.TOKEN_MISSING, "this call must say for which user it is")
    return called_by


def _bearer(metadata: Mapping[str, str]) -> str | None:
    value = metadata.get(AUTHORIZATION)
    if value is None:
        return None
    if not value.lower().startswith(_BEARER):
        raise AppError(Reason.TOKEN_INVALID, "the authorization must be a bearer token")
    return value[len(_BEARER) :]
