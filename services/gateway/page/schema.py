"""The bodies and query parameters that the page sends. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from services.gateway.errors import from_validation

# What a message of the mesh holds, and a query of recall; see ChatRequest and RecallRequest.
MAX_TEXT_BYTES = 32_768
MAX_QUERY_BYTES = 8_192
# The mesh takes more; a page that carries more than this with each message has no use for it.
MAX_HISTORY = 200


def _within(limit_bytes: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text.encode(errors="surrogatepass")) > limit_bytes:
            raise ValueError(f"must be at most {limit_bytes} bytes of text")
        return text

    return AfterValidator(check)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the NUL character")
    return text


_NotNul = AfterValidator(_without_nul)
Text: TypeAlias = Annotated[str, Field(min_length=1), _within(MAX_TEXT_BYTES), _NotNul]
Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=64), _NotNul]
OptionalId: TypeAlias = Annotated[str, Field(max_length=64), _NotNul]
ConversationId: TypeAlias = Annotated[str, Field(min_length=1, max_length=128), _NotNul]
PageToken: TypeAlias = Annotated[str, Field(max_length=1024), _NotNul]
PageSize: TypeAlias = Annotated[int, Field(ge=1, le=100)]


class Body(BaseModel):
    """What a request holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Said(Body):
    """One message of a history that the page brings along."""

    role: Literal["user", "assistant"]
    text: Text


class ReplyBody(Body):
    """A message, and how its reply is to be made: `POST reply`."""

    request_id: Id
    conversation_id: ConversationId
    text: Text
    # Names the message, so that it can be answered again without being stored again.
    message_key: OptionalId = ""
    # The message this one continues from.
    parent_message_id: OptionalId = ""
    # Nothing is recalled and nothing is stored.
    private: bool = False
    # Shown to the model in place of what is stored of the conversation; never stored.
    history: Annotated[list[Said], Field(max_length=MAX_HISTORY)] | None = None


class RecallBody(Body):
    """A search among the memories: `POST memories/recall`."""

    query: Annotated[str, Field(min_length=1), _within(MAX_QUERY_BYTES), _NotNul]
    limit: PageSize = 20


class CorrectionBody(Body):
    """A memory's new text: `PATCH memories/ID`."""

    request_id: Id
    text: Text
    # The version that was read; another one by now is a conflict.
    expected_version: Annotated[int, Field(ge=1, le=2**63 - 1)]


class Paging(Body):
    """Which page of a list."""

    page_size: PageSize = 20
    page_token: PageToken = ""


class OfConversation(Body):
    """Which conversation."""

    conversation_id: ConversationId


class MessagesOf(Paging):
    """Which messages."""

    conversation_id: ConversationId


class WhyOf(Body):
    """Which reply: by the request that made it, or by a message of its turn."""

    request_id: OptionalId = ""
    message_id: OptionalId = ""


_Model = TypeVar("_Model", bound=BaseModel)


def parsed(kind: type[_Model], content: bytes) -> _Model:
    """A JSON body; raises AppError INVALID_REQUEST, naming the fields."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise from_validation(error) from None


def asked(kind: type[_Model], request: Request) -> _Model:
    """A request's query parameters; raises AppError INVALID_REQUEST, naming them."""
    try:
        return kind.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise from_validation(error) from None
