"""What every part of the client calls the mesh with."""

from __future__ import annotations

from typing import Any

from echomesh import _session
from echomesh._session import Deadline, TokenSource, Transport


class Calls:
    """A transport, the tokens of one identity and the time that a call may take, in seconds."""

    _transport: Transport
    _tokens: TokenSource
    _timeout_s: float

    async def _unary(self, stub: type[Any], method: str, request: Any) -> Any:
        deadline = Deadline(self._timeout_s)
        return await _session.unary(self._transport, self._tokens, stub, method, request, deadline)
