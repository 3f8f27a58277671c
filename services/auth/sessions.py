"""Signing in, staying signed in, signing out: the rules behind AuthService."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.auth.actions import Action
from services.auth.auditing import by, refused, signed_in
from services.auth.credentials import (
    digest,
    parse_api_key,
    refresh_token_tenant,
    refresh_token_text,
    same,
)
from services.auth.events import alert, record
from services.auth.keyring import Keyring
from services.auth.login_limits import attempt_key, network_of
from services.auth.model import ROLE_USER, Family, Randomness, RefreshToken, Tokens, User
from services.auth.passwords import Passwords
from services.auth.refresh import Verdict, judge
from services.auth.refusal_limit import RefusalLimit
from services.auth.store import Store, TenantTransaction
from services.runtime.audit import AuditEvent
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity


@dataclass(frozen=True)
class Lifetimes:
    """How long a refresh token is good for, and how long one sign-in can be carried on at all."""

    refresh_token: timedelta
    family: timedelta


@dataclass(frozen=True)
class _Grant:
    """What a transaction decided; the access token is signed after it."""

    user: User
    refresh_token: str
    expires_at: datetime


class Sessions:
    """Gives out, renews and ends tokens."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        passwords: Passwords,
        lifetimes: Lifetimes,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._passwords = passwords
        self._lifetimes = lifetimes
        self._clock = clock
        self._randomness = randomness
        self._refusals = RefusalLimit(clock)

    async def login(self, tenant_name: str, username: str, password: str, peer: str) -> Tokens:
        """Sign in by password from gRPC peer `peer`.

        Raises AppError CREDENTIALS_INVALID, LOGIN_RATE_LIMITED, OVERLOADED.
        """
        key, now = attempt_key(tenant_name, username, network_of(peer)), self._clock.now()
        wait_s = await self._store.reserve_login(key, now)
        if wait_s > 0:
            alert("login_rate_limited", network=network_of(peer))
            raise _rate_limited(wait_s)
        try:
            tenant_id, found = await self._find(tenant_name, username)
            fits = await self._passwords.verify(found[1] if found else None, password)
        except AppError:
            # Refused for want of room, or Postgres is away: no password was tried.
            await self._store.release_login(key, now)
            raise
        if not fits or not found:
            record("login_refused")
            if tenant_id is not None:
                user_id = found[0].id if found else None
                details = {"network": network_of(peer)}
                await self._note(tenant_id, refused(user_id, Action.LOGIN, details))
            raise _invalid()
        await self._store.forget_failures(key)
        event = signed_in(found[0].id, Action.LOGIN, network=network_of(peer))
        tokens = await self._begin(found[0], event, password_hash=found[1])
        record("login")
        return tokens

    async def exchange_api_key(self, text: str) -> Tokens:
        """Sign in by key; raises AppError CREDENTIALS_INVALID.

        No limit on failures: 256 random bits cannot be guessed, and whoever knows a key's public
        part must not be able to lock its owner out.
        """
        parsed = parse_api_key(text)
        found = await self._store.api_key(parsed[0]) if parsed else None
        if parsed is None or found is None:
            record("api_key_refused")
            raise _invalid()
        key, fits = found[0], same(found[1], digest(parsed[1]))
        if not fits or key.revoked_at is not None:
            record("api_key_refused")
            details = {"api_key": key.id, "reason": "revoked" if fits else "wrong"}
            await self._note(key.tenant_id, refused(None, Action.API_KEY_EXCHANGE, details))
            raise _invalid()
        async with self._store.tenant(key.tenant_id) as tx:
            user = await tx.user(key.user_id)
        if user is None:
            raise _invalid()
        event = signed_in(user.id, Action.API_KEY_EXCHANGE, api_key=key.id)
        return await self._begin(user, event, api_key_id=key.id)

    async def exchange_token(self, app: Identity, external_id: str) -> tuple[Tokens, str]:
        """Sign in an application's end user, made on first use; return also the user's id."""
        async with self._store.tenant(app.tenant_id) as tx:
            user = await tx.external_user(external_id)
            if user is None:
                user = await self._make_external(tx, app, external_id)
        event = by(app).did(Action.TOKEN_EXCHANGE, f"user:{user.id}")
        return await self._begin(user, event), user.id

    async def refresh(self, text: str, request_id: str) -> Tokens:
        """Exchange a refresh token for new tokens; the rules are in `refresh.judge`.

        Raises AppError TOKEN_INVALID, TOKEN_EXPIRED, REFRESH_TOKEN_REUSED.
        """
        tenant_id = refresh_token_tenant(text)
        if tenant_id is None:
            raise _token_invalid()
        async with self._store.tenant(tenant_id) as tx:
            outcome = await self._rotate(tx, digest(text), request_id)
        # Raised out here, so that what was decided (a revoked family) is committed.
        if isinstance(outcome, AppError):
            raise outcome
        return await self._complete(outcome)

    async def logout(self, text: str) -> None:
        """End the family of a refresh token; one that is unknown is as good as ended."""
        tenant_id = refresh_token_tenant(text)
        if tenant_id is None:
            return
        async with self._store.tenant(tenant_id) as tx:
            found = await tx.lock_token(digest(text))
            if found is not None and found[1].revoked_for is None:
                family = found[1]
                await tx.revoke_family(family.id, "logout", self._clock.now())
                tx.audit(signed_in(family.user_id, Action.LOGOUT, session=family.id))

    async def _find(
        self, tenant_name: str, username: str
    ) -> tuple[str | None, tuple[User, str | None] | None]:
        """The id of the tenant, if there is one, and its user with the password's hash."""
        tenant = await self._store.tenant_named(tenant_name)
        if tenant is None:
            return None, None
        async with self._store.tenant(tenant.id) as tx:
            return tenant.id, await tx.user_named(username)

    async def _note(self, tenant_id: str, event: AuditEvent) -> None:
        """Record a refusal, which changed nothing."""
        bounded = self._refusals.bounded(tenant_id, event)
        if bounded is not None:
            async with self._store.tenant(tenant_id) as tx:
                tx.audit(bounded)

    async def _make_external(self, tx: TenantTransaction, app: Identity, external_id: str) -> User:
        user = User(
            tenant_id=app.tenant_id,
            id=self._randomness.new_id(),
            username=None,
            external_id=external_id,
            roles=frozenset({ROLE_USER}),
            created_at=self._clock.now(),
        )
        if await tx.add_user(user, None):
            roles = sorted(user.roles)
            tx.audit(by(app).did(Action.USER_CREATE, f"user:{user.id}", roles=roles))
            return user
        # Made by another call in the meantime.
        made = await tx.external_user(external_id)
        if made is None:
            raise AppError(Reason.INTERNAL, "the user could not be made")
        return made

    async def _begin(
        self,
        user: User,
        event: AuditEvent,
        *,
        api_key_id: str | None = None,
        password_hash: str | None = None,
    ) -> Tokens:
        now = self._clock.now()
        family = Family(
            tenant_id=user.tenant_id,
            id=self._randomness.new_id(),
            user_id=user.id,
            created_at=now,
            expires_at=now + self._lifetimes.family,
            api_key_id=api_key_id,
        )
        text, token = self._new_token(family, None, now)
        async with self._store.tenant(user.tenant_id) as tx:
            # A key that is revoked meanwhile must not leave a sign-in behind, nor must a password
            # that was reset: whoever knew the old one would stay.
            if api_key_id is not None and not await tx.hold_api_key(api_key_id):
                raise _invalid()
            if password_hash is not None and not await tx.hold_password(user.id, password_hash):
                raise _invalid()
            await tx.add_family(family, token)
            tx.audit(replace(event, details={**event.details, "session": family.id}))
        return await self._complete(_Grant(user, text, token.expires_at))

    async def _rotate(
        self, tx: TenantTransaction, sha256: bytes, request_id: str
    ) -> _Grant | AppError:
        now = self._clock.now()
        found = await tx.lock_token(sha256)
        if found is None:
            return _token_invalid()
        token, family = found
        kin = await tx.kin(token)
        siblings = [other for other in kin if other.parent == token.parent and token.parent]
        successors = [other for other in kin if other.parent == token.sha256]
        verdict = judge(token, family, siblings, successors, request_id, now)
        if verdict is Verdict.REUSED:
            await tx.revoke_family(family.id, "reuse", now)
            alert("refresh_reused", tenant_id=family.tenant_id, user_id=family.user_id)
        refusal = _refusal(verdict)
        if refusal is not None:
            self._note_refusal(tx, verdict, family)
            return refusal
        user = await tx.user(family.user_id)
        if user is None:
            return _token_invalid()
        if verdict is Verdict.ROTATE:
            await tx.mark_used(sha256, request_id, now)
        text, successor = self._new_token(family, sha256, now)
        await tx.add_token(successor)
        tx.audit(signed_in(user.id, Action.REFRESH, session=family.id))
        return _Grant(user, text, successor.expires_at)

    def _note_refusal(self, tx: TenantTransaction, verdict: Verdict, family: Family) -> None:
        """Record a refused token; always where it ended the session, which happens once."""
        details = {"session": family.id, "reason": verdict.name.lower()}
        event = refused(family.user_id, Action.REFRESH, details)
        ends = verdict is Verdict.REUSED and family.revoked_for is None
        bounded = event if ends else self._refusals.bounded(family.tenant_id, event)
        if bounded is not None:
            tx.audit(bounded)

    def _new_token(
        self, family: Family, parent: bytes | None, now: datetime
    ) -> tuple[str, RefreshToken]:
        text = refresh_token_text(family.tenant_id, self._randomness.secret())
        expires_at = min(now + self._lifetimes.refresh_token, family.expires_at)
        token = RefreshToken(
            tenant_id=family.tenant_id,
            sha256=digest(text),
            family_id=family.id,
            parent=parent,
            created_at=now,
            expires_at=expires_at,
        )
        return text, token

    async def _complete(self, grant: _Grant) -> Tokens:
        access, access_expires_at = await self._keyring.sign(grant.user)
        return Tokens(access, access_expires_at, grant.refresh_token, grant.expires_at)


def _refusal(verdict: Verdict) -> AppError | None:
    if verdict is Verdict.REUSED:
        return AppError(Reason.REFRESH_TOKEN_REUSED, "the refresh token was used before")
    if verdict is Verdict.EXPIRED:
        return AppError(Reason.TOKEN_EXPIRED, "the refresh token has expired")
    if verdict is Verdict.REVOKED:
        return _token_invalid()
    return None


def _token_invalid() -> AppError:
    return AppError(Reason.TOKEN_INVALID, "the refresh token is not valid")


def _invalid() -> AppError:
    return AppError(Reason.CREDENTIALS_INVALID, "the credentials are not valid")


def _rate_limited(wait_s: float) -> AppError:
    return AppError(
        Reason.LOGIN_RATE_LIMITED,
        "too many failed sign-ins of this account from this network",
        retry_after_s=wait_s,
    )
