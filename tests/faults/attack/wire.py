"""HTTP/2 as a hostile client speaks it: illegal header bytes, half requests, resets, silence."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONFIG = H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=False,
)
Headers = Sequence[tuple[bytes, bytes]]


def grpc_frame(message: bytes) -> bytes:
    """A message as gRPC frames it."""
    return struct.pack(">BI", 0, len(message)) + message


def connect(address: str, timeout_s: float = 10.0) -> socket.socket:
    """An open TCP connection to host:port."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=timeout_s)


@dataclass
class RawAnswer:
    """What came back on one stream."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The gRPC status code, if there is one."""
        value = self.headers.get(b"grpc-status")
        return None if value is None else int(value)


class RawClient:
    """One connection whose headers may be anything."""

    def __init__(self, address: str, timeout_s: float = 10.0, *, window: int = 65_535) -> None:
        """Connect. With a `window` of 0 bytes the server may send no message on any stream."""
        self.socket = connect(address, timeout_s)
        self.h2 = H2Connection(_CONFIG)
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()

    def request(self, path: str, headers: Headers = (), body: bytes | None = b"") -> int:
        """Begin a gRPC call and return its stream; `body` None leaves it open."""
        stream = self.h2.get_next_available_stream_id()
        base = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        self.h2.send_headers(stream, [*base, *headers])
        if body is not None:
            self.h2.send_data(stream, grpc_frame(body), end_stream=True)
        self.flush()
        return stream

    def reset(self, stream: int) -> None:
        """Cancel a stream."""
        self.h2.reset_stream(stream, error_code=8)
        self.flush()

    def answer(self, stream: int) -> RawAnswer:
        """Read until the stream or the connection has ended."""
        answer = RawAnswer()
        while data := self._read():
            for event in self._events(data):
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, ResponseReceived | TrailersReceived):
                    answer.headers.update(dict(event.headers))
                elif isinstance(event, StreamReset):
                    answer.reset = event.error_code
                    return answer
                elif isinstance(event, StreamEnded):
                    return answer
            self.flush()
        return answer

    def flush(self) -> None:
        """Send what is due."""
        self.socket.sendall(self.h2.data_to_send())

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    def _read(self) -> bytes:
        try:
            return self.socket.recv(65_536)
        except (ConnectionError, TimeoutError):
            return b""

    def _events(self, data: bytes) -> Sequence[Event]:
        try:
            return self.h2.receive_data(data)
        except ProtocolError:
            return ()
