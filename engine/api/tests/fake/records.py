"""The services that keep records: images, containers, leases, namespaces; introspection and the version."""

import os
import re
from collections.abc import AsyncIterator, Callable

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import (
    containers_pb2,
    event_messages_pb2,
    health_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    version_pb2,
)
from engine.api.tests.fake.events import Events
from engine.api.tests.fake.state import Call, Lease, Namespace, masked, matching, now
from engine.common.errors import Kind, WharfError, invalid, not_found

_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
#: Called after a delete with ``sync``.
Collect = Callable[[Namespace], None]


def check_identifier(name: str) -> None:
    if not _IDENTIFIER.fullmatch(name):
        raise invalid(f'identifier "{name}" must match ^{_IDENTIFIER.pattern}$')


class Images:
    def __init__(self, events: Events, collect: Collect) -> None:
        self._events = events
        self._collect = collect

    def get(self, call: Call, request: images_pb2.GetImageRequest) -> images_pb2.GetImageResponse:
        return images_pb2.GetImageResponse(image=self._image(call, request.name))

    def list(self, call: Call, request: images_pb2.ListImagesRequest) -> images_pb2.ListImagesResponse:
        found = matching(call.space.images.values(), request.filters)
        return images_pb2.ListImagesResponse(images=sorted(found, key=lambda image: image.name))

    def create(self, call: Call, request: images_pb2.CreateImageRequest) -> images_pb2.CreateImageResponse:
        image = request.image
        if image.name in call.space.images:
            raise WharfError(Kind.ALREADY_EXISTS, f'image "{image.name}": already exists')
        image.created_at.CopyFrom(now())
        image.updated_at.CopyFrom(now())
        call.space.images[image.name] = image
        self._events.publish_own(
            call.namespace, "/images/create", images_pb2.ImageCreate(name=image.name, labels=image.labels)
        )
        return images_pb2.CreateImageResponse(image=image)

    def update(self, call: Call, request: images_pb2.UpdateImageRequest) -> images_pb2.UpdateImageResponse:
        image = self._image(call, request.image.name)
        masked(image, request.image, request.update_mask.paths or ["target", "labels"])
        image.updated_at.CopyFrom(now())
        self._events.publish_own(
            call.namespace, "/images/update", images_pb2.ImageUpdate(name=image.name, labels=image.labels)
        )
        return images_pb2.UpdateImageResponse(image=image)

    def delete(self, call: Call, request: images_pb2.DeleteImageRequest) -> Empty:
        self._image(call, request.name)
        del call.space.images[request.name]
        self._events.publish_own(call.namespace, "/images/delete", images_pb2.ImageDelete(name=request.name))
        if request.sync:
            self._collect(call.space)
        return Empty()

    def _image(self, call: Call, name: str) -> images_pb2.Image:
        found = call.space.images.get(name)
        if found is None:
            raise not_found(f'image "{name}": not found')
        return found


class Containers:
    def __init__(self, events: Events) -> None:
        self._events = events

    def get(self, call: Call, request: containers_pb2.GetContainerRequest) -> containers_pb2.GetContainerResponse:
        return containers_pb2.GetContainerResponse(container=self._container(call, request.id))

    async def list_stream(
        self, call: Call, request: containers_pb2.ListContainersRequest
    ) -> AsyncIterator[containers_pb2.ListContainerMessage]:
        for container in matching(list(call.space.containers.values()), request.filters):
            yield containers_pb2.ListContainerMessage(container=container)

    def create(
        self, call: Call, request: containers_pb2.CreateContainerRequest
    ) -> containers_pb2.CreateContainerResponse:
        container = request.container
        check_identifier(container.id)
        if container.id in call.space.containers:
            raise WharfError(Kind.ALREADY_EXISTS, f'container "{container.id}": already exists')
        container.created_at.CopyFrom(now())
        container.updated_at.CopyFrom(now())
        call.space.containers[container.id] = container
        created = event_messages_pb2.ContainerCreate(id=container.id, image=container.image)
        self._events.publish_own(call.namespace, "/containers/create", created)
        return containers_pb2.CreateContainerResponse(container=container)

    def update(
        self, call: Call, request: containers_pb2.UpdateContainerRequest
    ) -> containers_pb2.UpdateContainerResponse:
        container = self._container(call, request.container.id)
        masked(container, request.container, request.update_mask.paths)
        container.updated_at.CopyFrom(now())
        updated = event_messages_pb2.ContainerUpdate(id=container.id, image=container.image, labels=container.labels)
        self._events.publish_own(call.namespace, "/containers/update", updated)
        return containers_pb2.UpdateContainerResponse(container=container)

    def delete(self, call: Call, request: containers_pb2.DeleteContainerRequest) -> Empty:
        self._container(call, request.id)
        del call.space.containers[request.id]
        self._events.publish_own(
            call.namespace, "/containers/delete", event_messages_pb2.ContainerDelete(id=request.id)
        )
        return Empty()

    def _container(self, call: Call, id: str) -> containers_pb2.Container:
        found = call.space.containers.get(id)
        if found is None:
            raise not_found(f'container "{id}": not found')
        return found


class Leases:
    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def create(self, call: Call, request: leases_pb2.CreateRequest) -> leases_pb2.CreateResponse:
        if request.id in call.space.leases:
            raise WharfError(Kind.ALREADY_EXISTS, f'lease "{request.id}": already exists')
        message = leases_pb2.Lease(id=request.id, created_at=now(), labels=request.labels)
        call.space.leases[request.id] = Lease(message)
        return leases_pb2.CreateResponse(lease=message)

    def delete(self, call: Call, request: leases_pb2.DeleteRequest) -> Empty:
        self._lease(call, request.id)
        del call.space.leases[request.id]
        if request.sync:
            self._collect(call.space)
        return Empty()

    def list(self, call: Call, request: leases_pb2.ListRequest) -> leases_pb2.ListResponse:
        return leases_pb2.ListResponse(
            leases=matching([lease.message for lease in call.space.leases.values()], request.filters)
        )

    def add_resource(self, call: Call, request: leases_pb2.AddResourceRequest) -> Empty:
        self._lease(call, request.id).resources.add((request.resource.type, request.resource.id))
        return Empty()

    def delete_resource(self, call: Call, request: leases_pb2.DeleteResourceRequest) -> Empty:
        self._lease(call, request.id).resources.discard((request.resource.type, request.resource.id))
        return Empty()

    def list_resources(self, call: Call, request: leases_pb2.ListResourcesRequest) -> leases_pb2.ListResourcesResponse:
        held = sorted(self._lease(call, request.id).resources)
        return leases_pb2.ListResourcesResponse(resources=[leases_pb2.Resource(type=t, id=i) for t, i in held])

    def _lease(self, call: Call, id: str) -> Lease:
        found = call.space.leases.get(id)
        if found is None:
            raise not_found(f'lease "{id}": not found')
        return found


class Namespaces:
    def __init__(self, spaces: dict[str, Namespace]) -> None:
        self._spaces = spaces

    def get(self, call: Call, request: namespaces_pb2.GetNamespaceRequest) -> namespaces_pb2.GetNamespaceResponse:
        found = self._spaces.get(request.name) or Namespace()
        return namespaces_pb2.GetNamespaceResponse(
            namespace=namespaces_pb2.Namespace(name=request.name, labels=found.labels)
        )

    def list(self, call: Call, request: namespaces_pb2.ListNamespacesRequest) -> namespaces_pb2.ListNamespacesResponse:
        return namespaces_pb2.ListNamespacesResponse(
            namespaces=[
                namespaces_pb2.Namespace(name=name, labels=self._spaces[name].labels) for name in sorted(self._spaces)
            ]
        )

    def create(
        self, call: Call, request: namespaces_pb2.CreateNamespaceRequest
    ) -> namespaces_pb2.CreateNamespaceResponse:
        name = request.namespace.name
        check_identifier(name)
        if name in self._spaces:
            raise WharfError(Kind.ALREADY_EXISTS, f'namespace "{name}": already exists')
        self._spaces[name] = Namespace(labels=dict(request.namespace.labels))
        return namespaces_pb2.CreateNamespaceResponse(namespace=request.namespace)

    def update(
        self, call: Call, request: namespaces_pb2.UpdateNamespaceRequest
    ) -> namespaces_pb2.UpdateNamespaceResponse:
        space = self._space(request.namespace.name)
        message = namespaces_pb2.Namespace(name=request.namespace.name, labels=space.labels)
        masked(message, request.namespace, request.update_mask.paths or ["labels"])
        space.labels = dict(message.labels)
        return namespaces_pb2.UpdateNamespaceResponse(namespace=message)

    def delete(self, call: Call, request: namespaces_pb2.DeleteNamespaceRequest) -> Empty:
        if not self._space(request.name).empty:
            raise WharfError(Kind.FAILED_PRECONDITION, f'namespace "{request.name}" must be empty')
        del self._spaces[request.name]
        return Empty()

    def _space(self, name: str) -> Namespace:
        found = self._spaces.get(name)
        if found is None:
            raise not_found(f'namespace "{name}": not found')
        return found


class Server:
    """The server's version, identity and plugins."""

    def plugins(self, call: Call, request: introspection_pb2.PluginsRequest) -> introspection_pb2.PluginsResponse:
        kind = "io.containerd.snapshotter.v1"
        known = [introspection_pb2.Plugin(type=kind, id=name) for name in ("native", "overlayfs")]
        return introspection_pb2.PluginsResponse(plugins=matching(known, request.filters))

    def server(self, call: Call, request: Empty) -> introspection_pb2.ServerResponse:
        return introspection_pb2.ServerResponse(uuid="00000000-0000-4000-8000-000000000000", pid=os.getpid())

    def version(self, call: Call, request: Empty) -> version_pb2.VersionResponse:
        return version_pb2.VersionResponse(version="1.7.24", revision="0123456789abcdef")

    def check(self, call: Call, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
