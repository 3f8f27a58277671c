"""The first tenant, user and keys of a mesh, made once; running it again changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.auth.actions import Action
from services.auth.administration import Administration
from services.auth.auditing import By
from services.auth.credentials import SystemRandomness, digest, parse_api_key, same
from services.auth.keyring import Keyring
from services.auth.model import ROLE_APP, ROLE_USER, ROLES, ApiKey, Tenant, User
from services.auth.store import Store
from services.auth.wrapping import write_private
from services.runtime.audit import BOOTSTRAP
from services.runtime.clock import Clock
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity

# File entry, username and roles of the accounts that are made.
_ACCOUNTS = (
    ("api_key", "owner", ROLES),
    ("app_key", "app", frozenset({ROLE_APP, ROLE_USER})),
)


@dataclass(frozen=True)
class Bootstrap:
    """Makes what is missing. `administration` and `keyring` work on `store`."""

    store: Store
    administration: Administration
    keyring: Keyring
    clock: Clock

    async def run(
        self, tenant_name: str, existing: Mapping[str, str], *, renew: bool = True
    ) -> dict[str, str]:
        """Return the credentials; keys of `existing` are kept where they still work.

        With `renew` one that was revoked is replaced, else it stays as it is.
        """
        tenant = await self._tenant(tenant_name)
        await self.keyring.ensure_key(By(tenant.id, BOOTSTRAP))
        result = {"tenant": tenant.name, "tenant_id": tenant.id}
        for entry, username, roles in _ACCOUNTS:
            user = await self._user(tenant, username, roles)
            result.setdefault("user_id", user.id)
            result[entry] = await self._key(user, existing.get(entry, ""), renew=renew)
        return result

    async def take_back(self, credentials: Mapping[str, str], kept: Mapping[str, str]) -> None:
        """Revoke the keys of `credentials` that are not among `kept`: nobody has them."""
        identity = Identity(credentials["tenant_id"], credentials["user_id"], ROLES)
        for entry, _, _ in _ACCOUNTS:
            parsed = parse_api_key(credentials[entry])
            if parsed is not None and credentials[entry] != kept.get(entry):
                await self.administration.revoke_api_key(identity, parsed[0])

    async def _tenant(self, name: str) -> Tenant:
        tenant = await self.store.tenant_named(name)
        if tenant is None:
            tenant = Tenant(SystemRandomness().new_id(), name, self.clock.now())
            async with self.store.tenant(tenant.id) as tx:
                if await tx.add_tenant(tenant):
                    by = By(tenant.id, BOOTSTRAP)
                    tx.audit(by.did(Action.TENANT_CREATE, f"tenant:{tenant.id}"))
        return await self.store.tenant_named(name) or tenant

    async def _user(self, tenant: Tenant, username: str, roles: frozenset[str]) -> User:
        user_id = SystemRandomness().new_id()
        user = User(tenant.id, user_id, username, None, roles, self.clock.now())
        async with self.store.tenant(tenant.id) as tx:
            if await tx.add_user(user, None):
                by = By(tenant.id, BOOTSTRAP)
                tx.audit(by.did(Action.USER_CREATE, f"user:{user.id}", roles=sorted(roles)))
            found = await tx.user_named(username)
        return found[0] if found else user

    async def _key(self, user: User, existing: str, *, renew: bool) -> str:
        known = await self._known(existing, user)
        if known is not None and not (renew and known.revoked_at):
            return existing
        identity = Identity(user.tenant_id, user.id, ROLES)
        _, text = await self.administration.create_api_key(identity, "bootstrap", user.id)
        return text

    async def _known(self, text: str, user: User) -> ApiKey | None:
        """The key of that text if it is, or was, the user's."""
        parsed = parse_api_key(text)
        found = await self.store.api_key(parsed[0]) if parsed else None
        if parsed is None or found is None:
            return None
        key, sha256 = found
        return key if same(sha256, digest(parsed[1])) and key.user_id == user.id else None


def read_existing(path: Path) -> dict[str, str]:
    """Return the credentials in a file; none if it is missing. Raises AppError if it is broken."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise AppError(Reason.INTERNAL, f"{path} cannot be read; move it away") from error
    if not isinstance(content, dict):
        raise AppError(Reason.INTERNAL, f"{path} holds no credentials; move it away")
    return {str(key): value for key, value in content.items() if isinstance(value, str)}


def write_credentials(path: Path, credentials: Mapping[str, str]) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    write_private(draft, (json.dumps(dict(credentials), indent=2) + "\n").encode())
    draft.replace(path)
