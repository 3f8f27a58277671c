"""From Qdrant's messages to the edge engine's terms and back.

What memory's index does not send is refused, never ignored: a test that passes here must not rest
on a condition that was dropped. One thing is ignored as a real server ignores it (facts of 1.18.2):
an IDF corpus in the search parameters.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import grpc
import qdrant_edge as edge
from qdrant_client import grpc as q
from qdrant_client.conversions.conversion import json_to_value, value_to_json

from tests.support.qdrant_server.engine import RefusedError

_DISTANCES = {
    q.Distance.Cosine: edge.Distance.Cosine,
    q.Distance.Dot: edge.Distance.Dot,
    q.Distance.Euclid: edge.Distance.Euclid,
    q.Distance.Manhattan: edge.Distance.Manhattan,
}
_DATATYPES = {
    q.Datatype.Default: edge.VectorStorageDatatype.Float32,
    q.Datatype.Float32: edge.VectorStorageDatatype.Float32,
    q.Datatype.Float16: edge.VectorStorageDatatype.Float16,
}


def refuse(what: str) -> NoReturn:
    """Refuse what this server does not do."""
    raise RefusedError(grpc.StatusCode.UNIMPLEMENTED, f"this server does not do {what}")


def collection_config(request: Any) -> Any:
    """Return the engine's configuration for a CreateCollection."""
    if request.vectors_config.WhichOneof("config") != "params_map":
        refuse("unnamed vectors")
    sparse = request.sparse_vectors_config.map
    if any(params.modifier for params in sparse.values()):
        refuse("sparse modifiers")
    hnsw = request.hnsw_config
    graph = edge.HnswIndexConfig(
        m=hnsw.m if hnsw.HasField("m") else 16,
        ef_construct=hnsw.ef_construct or 100,
        full_scan_threshold=hnsw.full_scan_threshold or 10_000,
        payload_m=hnsw.payload_m if hnsw.HasField("payload_m") else None,
    )
    named = request.vectors_config.params_map.map.items()
    return edge.EdgeConfig(
        vectors={name: _dense_params(params) for name, params in named},
        sparse_vectors={name: edge.EdgeSparseVectorParams() for name in sparse},
        hnsw_config=graph,
        wal_enabled=True,
    )


def _dense_params(params: Any) -> Any:
    return edge.EdgeVectorParams(
        size=params.size,
        distance=_DISTANCES[params.distance],
        datatype=_DATATYPES[params.datatype],
    )


def field_index(params: Any) -> Any:
    """Return the engine's parameters for a payload index."""
    kind = params.WhichOneof("index_params")
    if kind == "keyword_index_params":
        return edge.KeywordIndexParams(is_tenant=params.keyword_index_params.is_tenant)
    if kind == "integer_index_params":
        integer = params.integer_index_params
        return edge.IntegerIndexParams(lookup=integer.lookup, range=integer.range)
    return refuse(f"a payload index of {kind}")


def point(message: Any) -> Any:
    """Return the engine's point for a PointStruct."""
    payload = {key: value_to_json(value) for key, value in message.payload.items()}
    named = message.vectors.vectors.vectors.items()
    if message.vectors.WhichOneof("vectors_options") == "vector":
        refuse("unnamed vectors")
    vectors = {name: _vector(vector) for name, vector in named}
    return edge.Point(point_id(message.id), vectors, payload)


def point_id(message: Any) -> int | uuid.UUID:
    """Return the engine's id for a PointId."""
    if message.WhichOneof("point_id_options") == "num":
        return int(message.num)
    try:
        return uuid.UUID(message.uuid)
    except ValueError:
        text = f"Unable to parse UUID: {message.uuid}"
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text) from None


def query(message: Any) -> Any:
    """Return the engine's query for a QueryPoints."""
    if message.prefetch or message.query.WhichOneof("variant") != "nearest":
        refuse("any query but the nearest")
    return edge.QueryRequest(
        limit=message.limit if message.HasField("limit") else 10,
        offset=message.offset,
        query=edge.Query.Nearest(_vector(message.query.nearest), using=message.using or None),
        filter=filter_of(message.filter),
        params=edge.SearchParams(exact=message.params.exact),
        score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        with_payload=payload_selector(message.with_payload),
    )


def _vector(message: Any) -> Any:
    """Return a dense or a sparse vector, as PointStruct and Query both hold it."""
    kind = message.WhichOneof("vector" if isinstance(message, q.Vector) else "variant")
    if kind == "dense":
        return list(message.dense.data)
    if kind == "sparse":
        sparse = message.sparse
        return edge.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
    if kind is None and isinstance(message, q.Vector):
        return _old_vector(message)
    return refuse(f"a vector of {kind}")


def _old_vector(message: Any) -> Any:
    """Return a vector in the form that clients before 1.13 send."""
    if message.HasField("indices"):
        return edge.SparseVector(indices=list(message.indices.data), values=list(message.data))
    return list(message.data)


def payload_selector(message: Any) -> Any:
    """Return which part of the payload is asked for."""
    kind = message.WhichOneof("selector_options")
    if kind == "include":
        return list(message.include.fields)
    if kind == "exclude":
        refuse("leaving fields of the payload out")
    return bool(message.enable)


def filter_of(message: Any) -> Any:
    """Return the engine's filter for a Filter."""
    if message.HasField("min_should"):
        refuse("min_should")
    return edge.Filter(
        must=_conditions(message.must),
        should=_conditions(message.should),
        must_not=_conditions(message.must_not),
    )


def _conditions(messages: Iterable[Any]) -> list[Any] | None:
    return [_condition(message) for message in messages] or None


def _condition(message: Any) -> Any:
    kind = message.WhichOneof("condition_one_of")
    if kind == "has_id":
        return edge.HasIdCondition({point_id(each) for each in message.has_id.has_id})
    if kind == "field":
        return _field_condition(message.field)
    return refuse(f"a condition of {kind}")


def _field_condition(field: Any) -> Any:
    if field.HasField("match"):
        return edge.FieldCondition(key=field.key, match=_match(field.match))
    if field.HasField("range"):
        span = {name.name: value for name, value in field.range.ListFields()}
        return edge.FieldCondition(key=field.key, range=edge.RangeFloat(**span))
    return refuse(f"the condition on {field.key}")


def _match(message: Any) -> Any:
    kind = message.WhichOneof("match_value")
    if kind == "keyword":
        return edge.MatchValue(message.keyword)
    if kind == "keywords":
        return edge.MatchAny(list(message.keywords.strings))
    return refuse(f"a match of {kind}")


def scored(found: Any) -> Any:
    """Return a ScoredPoint for a point that the engine found."""
    message = q.ScoredPoint(id=id_message(found.id), score=found.score, version=found.version)
    _fill(message.payload, found.payload)
    return message


def retrieved(record: Any) -> Any:
    """Return a RetrievedPoint for a record of the engine."""
    message = q.RetrievedPoint(id=id_message(record.id))
    _fill(message.payload, record.payload)
    return message


def id_message(value: Any) -> Any:
    """Return a PointId for an id of the engine."""
    return q.PointId(num=value) if isinstance(value, int) else q.PointId(uuid=str(value))


def _fill(target: Any, payload: Mapping[str, Any] | None) -> None:
    for key, value in (payload or {}).items():
        target[key].CopyFrom(json_to_value(value))
