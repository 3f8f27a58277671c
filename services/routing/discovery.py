"""Which models services there are: one target, a list of addresses, or what Kubernetes says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from services.routing.config import RoutingSettings
from services.routing.instances import ModelInstances
from services.routing.ports import ModelsPort
from services.routing.streams import Background
from services.routing.upstreams import GrpcModels
from services.runtime.channel import ChannelFactory
from services.runtime.endpointslices import EndpointSlices, Selection, discovery_api, own_namespace
from services.runtime.health import Dependency

KUBERNETES = "kubernetes:"
"""Before a label selector: instances are learned from EndpointSlices."""

MESH_PORT = "grpc-mesh"
"""The name of the mesh listener's port in the chart's Services."""


async def find_models(
    settings: RoutingSettings, channels: ChannelFactory, stack: AsyncExitStack
) -> tuple[ModelsPort, dict[str, Dependency]]:
    """Return the models of the mesh, and the dependency that says whether they are reached.

    Without `models_instances` it is the one target, whose replicas serve the same models.
    """
    if not settings.models_instances:
        return GrpcModels(channels.channel("models")), {}
    background = Background()
    stack.push_async_callback(background.close, 0.0)

    def connect(address: str) -> GrpcModels:
        return GrpcModels(channels.channel_at("models", address))

    instances = ModelInstances(connect, background)
    stack.push_async_callback(instances.close)
    where = settings.models_instances
    if where.startswith(KUBERNETES):
        selector = where.removeprefix(KUBERNETES)
        selection = Selection(own_namespace(), selector, MESH_PORT)
        # Until the first list has come: the API server may be away.
        instances.know({settings.models_target})
        api = await asyncio.to_thread(discovery_api)
        stack.callback(EndpointSlices(selection, instances.know, api).start())
    else:
        instances.know({address.strip() for address in where.split(",") if address.strip()})
    return instances, {"models": instances.reached}
