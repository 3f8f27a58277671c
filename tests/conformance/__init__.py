"""One list of cases, which every SDK must pass against a live mesh.

A driver in each SDK's language reads JSON lines and does what they say with the packaged SDK; the
cases (`cases_*.py`) speak to it and judge what came back and what the mesh was sent.

A request is `{"id": 1, "op": "recall", "on": "user-1", ...arguments}`; the driver answers with any
number of `{"id": 1, "frame": {...}}` and one `{"id": 1, "ok": ...}` or `{"id": 1, "error": {...}}`.
Requests run side by side; `{"op": "cancel", "target": 1}` cancels one as its language does.
"""
