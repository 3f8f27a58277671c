"""The bodies that OpenAI's clients send, as far as the mesh can do what they ask.

Fields that are not here are taken and left alone, as other OpenAI-compatible servers do: clients
send many that change nothing. What would change the answer and cannot be had is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MAX_MESSAGES = 1024
MAX_STOPS = 4
MAX_TOOLS = 128
# What OpenAI allows in one request.
MAX_INPUTS = 2048
DEFAULT_MODEL = "echomesh"

Text: TypeAlias = Annotated[str, Field(max_length=1_048_576)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
Stop: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]


class Body(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ContentPart(Body):
    """A piece of a message. Only text can be read."""

    type: Annotated[str, Field(max_length=64)] = "text"
    text: Text | None = None


class FunctionCall(Body):
    """Which function a model called, with its arguments as JSON text."""

    name: Annotated[str, Field(max_length=64)]
    arguments: Text = ""


class ToolCall(Body):
    """A call that a reply asked for."""

    id: Annotated[str, Field(max_length=128)]
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], Field(max_length=256)] | None = None
    name: Annotated[str, Field(max_length=128)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=64)] | None = None
    tool_call_id: Annotated[str, Field(max_length=128)] | None = None


class Function(Body):
    """A function that a model may call."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: Annotated[str, Field(max_length=4096)] | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A tool that a model may use."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Body):
    """The function to call."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class NamedTool(Body):
    """The tool to use."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(Body):
    """What a reply must look like."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: Annotated[str, Field(max_length=64)] = "reply"
    body: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(Body):
    """The form of a reply."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class StreamOptions(Body):
    """What a stream holds beside its text."""

    include_usage: bool = False


class Sampled(Body):
    """What chat completions and completions have in common."""

    model: Annotated[str, Field(max_length=256)] = Field(
        DEFAULT_MODEL,
        description="A model of the mesh; a tier: echomesh-instant, echomesh-fast, "
        "echomesh-standard; or echomesh: the mesh chooses.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=0, le=131_072)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[int, Field(ge=1, le=1, description="One reply for each request.")] | None = None
    user: Name | None = Field(
        None,
        description="The application's own id of its end user, who is made on first use and whose "
        "memory it is. The key must have the role app.",
    )


class ChatCompletionRequest(Sampled):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=0, le=131_072)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    functions: (
        Annotated[
            list[Any],
            Field(max_length=0, description="Replaced by tools; refused, not passed over."),
        ]
        | None
    ) = None
    response_format: ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    store: bool | None = Field(
        None, description="False: nothing of this request is stored. Unset: it is."
    )


class CompletionRequest(Sampled):
    """The body of POST /v1/completions."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    echo: Literal[False] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None


class EmbeddingRequest(Body):
    """The body of POST /v1/embeddings."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
    model: Annotated[str, Field(max_length=256)] = DEFAULT_MODEL
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: Name | None = None
