"""AuditService of auth: the tenant's audit log, to be read and anchored."""

from __future__ import annotations

from typing import Any

from echomesh.auth.v1 import audit_pb2, audit_pb2_grpc
from services.runtime.audit_reading import AuditReader
from services.runtime.identity import current_identity


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Reading the log of the calling administrator's tenant."""

    def __init__(self, reader: AuditReader) -> None:
        self._reader = reader

    async def ListAuditEntries(  # noqa: N802
        self, request: audit_pb2.ListAuditEntriesRequest, context: Any
    ) -> audit_pb2.ListAuditEntriesResponse:
        """Return a page of entries in the order of the chain."""
        entries, token = await self._reader.page(
            current_identity(), request.page_size, request.page_token
        )
        return audit_pb2.ListAuditEntriesResponse(entries=entries, next_page_token=token)

    async def GetAuditAnchor(  # noqa: N802
        self, request: audit_pb2.GetAuditAnchorRequest, context: Any
    ) -> audit_pb2.GetAuditAnchorResponse:
        """Return the chain's last entry."""
        anchor = await self._reader.anchor(current_identity())
        return audit_pb2.GetAuditAnchorResponse(anchor=anchor)
