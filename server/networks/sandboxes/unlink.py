"""``docker rm --link``, also while the client runs."""

from dataclasses import replace

from server.containers.registry import View
from server.networks import links
from server.networks.context import NetworkContext
from server.networks.dns import hosts_file
from server.networks.sandboxes import elements


async def remove_link(context: NetworkContext, key: str, containers: View) -> None:
    """Removes the link ``/client/alias``, not the containers.

    :raises WharfError: NOT_FOUND; INTERNAL for a container's own name.
    """
    client, _, alias = links.find(context, key, containers)
    present = client.host_config.links or ()
    kept = tuple(text for text in present if links.parse(text)[1] != alias)
    client.host_config = replace(client.host_config, links=kept)
    if context.save_container is not None:
        await context.save_container(client)
    record = context.sandboxes.get(client.id)
    if record is not None:
        await context.run_in_thread(elements.close_links, context, client, record)
        await context.store.put_sandbox(record)
        await hosts_file.update_links(context, client, record)
