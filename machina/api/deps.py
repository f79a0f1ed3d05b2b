"""What routes ask the framework for: the process's resources, the format, the place to resume."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from machina.admission import Handle, handle_of
from machina.api.json_body import read_object
from machina.api.open_streams import OpenStreams
from machina.errors import Draining, Invalid
from machina.ids import BEGINNING, EventId
from machina.observability.supervision import Supervisor
from machina.resources import Resources
from machina.wire import Encoder, negotiate


async def resources_of(request: Request) -> Resources:
    """What this process opened."""
    resources: Resources = request.state.resources
    return resources


async def streams_of(request: Request) -> OpenStreams:
    """The streams this process relays."""
    streams: OpenStreams = request.state.streams
    return streams


async def supervisor_of(request: Request) -> Supervisor:
    """The keeper of this process's background tasks."""
    supervisor: Supervisor = request.state.supervisor
    return supervisor


async def began_at(request: Request) -> float:
    """When this request came, by the monotonic clock."""
    began: float = request.scope["machina.began"]
    return began


async def admission_handle(request: Request) -> Handle:
    """What this request holds until its last byte."""
    return handle_of(request.scope)


async def encoder_for(
    request: Request,
    format: Annotated[
        str | None,
        Query(description="`ndjson` or `sse`; overrides the Accept header.", examples=["sse"]),
    ] = None,
) -> Encoder:
    """The encoder of this response. Raises `Invalid` for a format that does not exist."""
    return negotiate(request.headers.get("accept"), format)


async def not_draining(resources: ResourcesDep) -> None:
    """Refuses what this process would not see to its end. Raises `Draining`."""
    if resources.draining:
        raise Draining(
            "This process is shutting down; send the request again, another one will answer.",
            retry_after=1,
        )


async def resume_point(
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="Id of the last event received; the stream goes on after it.",
            examples=["1-17"],
        ),
    ] = None,
    after: Annotated[
        str | None,
        Query(description="The same as Last-Event-ID, for clients that cannot set headers."),
    ] = None,
) -> EventId:
    """Where a resumed stream goes on; from the beginning when nothing is said.

    Raises:
        MalformedEventId: 400.
        Invalid: header and query disagree.
    """
    # A browser that never got an id, and clients with a fixed set of headers, send an empty one.
    named = {text for text in (last_event_id, after) if text}
    if len(named) > 1:
        raise Invalid(
            "'Last-Event-ID' and 'after' name different events; send one of them.", field="after"
        )
    return EventId.parse(named.pop()) if named else BEGINNING


ResourcesDep = Annotated[Resources, Depends(resources_of)]
StreamsDep = Annotated[OpenStreams, Depends(streams_of)]
SupervisorDep = Annotated[Supervisor, Depends(supervisor_of)]
BeganDep = Annotated[float, Depends(began_at)]
HandleDep = Annotated[Handle, Depends(admission_handle)]
EncoderDep = Annotated[Encoder, Depends(encoder_for)]
ResumeDep = Annotated[EventId, Depends(resume_point)]
BodyDep = Annotated[dict[str, Any], Depends(read_object)]
