"""Tenants, users, roles, keys: the rules behind AdminService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.auth.actions import Action
from services.auth.auditing import by
from services.auth.credentials import api_key_text, digest, fingerprint, same
from services.auth.events import alert
from services.auth.keyring import Keyring
from services.auth.model import (
    ROLE_ADMIN,
    ROLE_APP,
    ROLE_OPERATOR,
    ROLE_USER,
    ApiKey,
    Randomness,
    SigningKey,
    Tenant,
    User,
)
from services.auth.paging import DEFAULT_PAGE_SIZE, Cursor, decode_cursor, encode_cursor
from services.auth.passwords import Passwords, check_password
from services.auth.refusals import refusals_recorded
from services.auth.store import Store, StoredAnswer, TenantTransaction
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason, not_found
from services.runtime.identity import Identity

Answer = Mapping[str, Any]
# What a tenant's first administrator may do: run the tenant and act for its end users.
_FIRST_ROLES = frozenset({ROLE_USER, ROLE_APP, ROLE_ADMIN})


class Administration:
    """What administrators do in their own tenant, and operators to the mesh.

    `fingerprint_key` keys the hashes that tell bodies of one request_id apart.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        passwords: Passwords,
        fingerprint_key: bytes,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._passwords = passwords
        self._fingerprint_key = fingerprint_key
        self._clock = clock
        self._randomness = randomness

    async def create_tenant(
        self, caller: Identity, request_id: str, name: str, admin: str, password: str
    ) -> tuple[Tenant, User]:
        """Make a tenant with its first administrator.

        Raises AppError ALREADY_EXISTS, REQUEST_ID_REUSED, INVALID_REQUEST.
        """
        check_password(password)
        hashed = await self._passwords.hash(password)

        async def plan(_: TenantTransaction) -> Answer:
            return {
                "id": self._randomness.new_id(),
                "admin_id": self._randomness.new_id(),
                "created_at": self._clock.now().isoformat(),
            }

        body = {"name": name, "admin": admin, "password": password}
        answer = await self._once(caller, request_id, "CreateTenant", body, plan)
        made_at = datetime.fromisoformat(answer["created_at"])
        tenant = Tenant(answer["id"], name, made_at)
        user = User(tenant.id, answer["admin_id"], admin, None, _FIRST_ROLES, made_at)
        # In a transaction of its own, since rows of the new tenant are seen by that tenant only.
        # A crash in between is mended by the repeated request, which plans the same tenant.
        async with self._store.tenant(tenant.id) as tx:
            if not await tx.add_tenant(tenant):
                raise _exists("tenant")
            if await tx.add_user(user, hashed):
                _audit_tenant(tx, caller, tenant, user)
        return tenant, user

    async def create_user(
        self,
        caller: Identity,
        request_id: str,
        username: str,
        password: str | None,
        roles: Collection[str],
    ) -> User:
        """Make a user of the caller's tenant; no roles means `user`.

        Raises AppError ALREADY_EXISTS, REQUEST_ID_REUSED, PERMISSION_DENIED, INVALID_REQUEST.
        """
        wanted = frozenset(roles) or frozenset({ROLE_USER})
        async with self._recorded(caller, Action.USER_CREATE):
            _check_grant(caller, wanted)
        if password is not None:
            check_password(password)
        hashed = None if password is None else await self._passwords.hash(password)

        async def make(tx: TenantTransaction) -> Answer:
            user = User(
                tenant_id=caller.tenant_id,
                id=self._randomness.new_id(),
                username=username,
                external_id=None,
                roles=wanted,
                created_at=self._clock.now(),
            )
            if not await tx.add_user(user, hashed):
                raise _exists("user")
            made = by(caller).did(Action.USER_CREATE, f"user:{user.id}", roles=sorted(wanted))
            tx.audit(made)
            return {"id": user.id, "created_at": user.created_at.isoformat()}

        body = {"username": username, "password": password, "roles": sorted(wanted)}
        answer = await self._once(caller, request_id, "CreateUser", body, make)
        created_at = datetime.fromisoformat(answer["created_at"])
        return User(caller.tenant_id, answer["id"], username, None, wanted, created_at)

    async def list_users(
        self, caller: Identity, page_size: int, page_token: str
    ) -> tuple[Sequence[User], str]:
        """Return a page of the tenant's users and the next page's token."""
        after, size = decode_cursor(page_token), page_size or DEFAULT_PAGE_SIZE
        async with self._store.tenant(caller.tenant_id) as tx:
            rows = await tx.users(after, size + 1)
        return rows[:size], _next_token(rows, size)

    async def set_roles(self, caller: Identity, user_id: str, roles: Collection[str]) -> User:
        """Replace a user's roles; raises AppError NOT_FOUND, PERMISSION_DENIED."""
        wanted = frozenset(roles)
        async with (
            self._recorded(caller, Action.SET_ROLES, f"user:{user_id}"),
            self._store.tenant(caller.tenant_id) as tx,
        ):
            # First whether there is such a user here: nobody else's id gets into this tenant's log.
            user = await _manageable(tx, caller, user_id)
            _check_grant(caller, wanted)
            await tx.set_roles(user.id, wanted)
            roles, before = sorted(wanted), sorted(user.roles)
            event = by(caller).did(Action.SET_ROLES, f"user:{user.id}", roles=roles, before=before)
            tx.audit(event)
        return replace(user, roles=wanted)

    async def set_password(self, caller: Identity, user_id: str, password: str) -> None:
        """Set a password and end the user's sign-ins; raises AppError NOT_FOUND."""
        check_password(password)
        hashed = await self._passwords.hash(password)
        async with (
            self._recorded(caller, Action.SET_PASSWORD, f"user:{user_id}"),
            self._store.tenant(caller.tenant_id) as tx,
        ):
            user = await _manageable(tx, caller, user_id)
            await tx.set_password(user.id, hashed)
            await tx.revoke_families_of(user.id, "password", self._clock.now())
            tx.audit(by(caller).did(Action.SET_PASSWORD, f"user:{user.id}"))

    async def create_api_key(self, caller: Identity, name: str, user_id: str) -> tuple[ApiKey, str]:
        """Make a key that gives a user's identity; its text is returned here only."""
        secret = self._randomness.secret()
        key = ApiKey(
            tenant_id=caller.tenant_id,
            id=self._randomness.key_id(),
            user_id=user_id,
            name=name,
            created_at=self._clock.now(),
        )
        async with (
            self._recorded(caller, Action.API_KEY_CREATE, f"user:{user_id}"),
            self._store.tenant(caller.tenant_id) as tx,
        ):
            await _manageable(tx, caller, user_id)
            await tx.add_api_key(key, digest(secret))
            tx.audit(by(caller).did(Action.API_KEY_CREATE, f"api_key:{key.id}", user=user_id))
        return key, api_key_text(key.id, secret)

    async def list_api_keys(
        self, caller: Identity, page_size: int, page_token: str
    ) -> tuple[Sequence[ApiKey], str]:
        """Return a page of the tenant's keys and the next page's token."""
        after, size = decode_cursor(page_token), page_size or DEFAULT_PAGE_SIZE
        async with self._store.tenant(caller.tenant_id) as tx:
            rows = await tx.api_keys(after, size + 1)
        return rows[:size], _next_token(rows, size)

    async def revoke_api_key(self, caller: Identity, key_id: str) -> None:
        """Revoke a key and all sign-ins made with it; again is fine. Raises AppError NOT_FOUND."""
        async with (
            self._recorded(caller, Action.API_KEY_REVOKE, f"api_key:{key_id}"),
            self._store.tenant(caller.tenant_id) as tx,
        ):
            key = await tx.api_key(key_id)
            if key is None:
                raise not_found("api key")
            await _manageable(tx, caller, key.user_id)
            await tx.revoke_api_key(key_id, self._clock.now())
            await tx.revoke_families_from(key_id, self._clock.now())
            if key.revoked_at is None:
                tx.audit(by(caller).did(Action.API_KEY_REVOKE, f"api_key:{key_id}"))
        alert("api_key_revoked", key_id=key_id, by=caller.user_id)

    async def rotate_signing_key(self, caller: Identity, request_id: str) -> SigningKey:
        """Publish a new signing key; the same request_id gives the same key."""
        async with self._store.tenant(caller.tenant_id) as tx:
            kept = await tx.answer_of(caller.user_id, request_id)
        mark = fingerprint(self._fingerprint_key, "RotateSigningKey", {})
        if kept is not None:
            _check_same(kept, mark)
            keys = await self._store.signing_keys()
            return next(key for key in keys if key.id == kept.answer["key_id"])
        # A crash before the answer is kept does no harm: the key waits, and is returned again.
        key = await self._keyring.rotate(by(caller))
        async with self._store.tenant(caller.tenant_id) as tx:
            stored = StoredAnswer(mark, {"key_id": key.id})
            await tx.keep_answer(caller.user_id, request_id, stored, self._clock.now())
        return key

    def _recorded(
        self, caller: Identity, action: Action, target: str = ""
    ) -> AbstractAsyncContextManager[None]:
        return refusals_recorded(self._store, caller, action, target)

    async def _once(
        self,
        caller: Identity,
        request_id: str,
        method: str,
        body: Mapping[str, object],
        work: Callable[[TenantTransaction], Awaitable[Answer]],
    ) -> Answer:
        mark = fingerprint(self._fingerprint_key, method, body)
        async with self._store.tenant(caller.tenant_id) as tx:
            kept = await tx.answer_of(caller.user_id, request_id)
            if kept is not None:
                _check_same(kept, mark)
                return kept.answer
            answer = await work(tx)
            stored = StoredAnswer(mark, answer)
            await tx.keep_answer(caller.user_id, request_id, stored, self._clock.now())
            return answer


def _audit_tenant(tx: TenantTransaction, caller: Identity, tenant: Tenant, admin: User) -> None:
    """In the new tenant's log, and in that of the tenant whose operator made it."""
    operator, home = by(caller), caller.tenant_id
    made = operator.did(Action.TENANT_CREATE, f"tenant:{tenant.id}", operator_tenant=home)
    tx.audit(made)
    tx.audit(made, home)
    roles = sorted(admin.roles)
    tx.audit(operator.did(Action.USER_CREATE, f"user:{admin.id}", roles=roles))


def _check_grant(caller: Identity, roles: frozenset[str]) -> None:
    if ROLE_OPERATOR in roles and ROLE_OPERATOR not in caller.roles:
        raise AppError(Reason.PERMISSION_DENIED, "only an operator can make operators")


async def _manageable(tx: TenantTransaction, caller: Identity, user_id: str) -> User:
    """Return the user; no administrator becomes operator through an operator's account."""
    user = await tx.user(user_id)
    if user is None:
        raise not_found("user")
    if ROLE_OPERATOR in user.roles and ROLE_OPERATOR not in caller.roles:
        raise AppError(Reason.PERMISSION_DENIED, "only an operator can manage an operator")
    return user


def _check_same(kept: StoredAnswer, mark: bytes) -> None:
    if not same(kept.fingerprint, mark):
        raise AppError(Reason.REQUEST_ID_REUSED, "the request_id was used for another request")


def _exists(kind: str) -> AppError:
    return AppError(Reason.ALREADY_EXISTS, f"such a {kind} exists", metadata={"type": kind})


def _next_token(rows: Sequence[User] | Sequence[ApiKey], size: int) -> str:
    if len(rows) <= size:
        return ""
    last = rows[size - 1]
    return encode_cursor(Cursor(last.created_at, last.id))
