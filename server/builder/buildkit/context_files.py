"""Determines the files of contexts that plans read, and the copied files that ``.dockerignore`` excludes."""

import asyncio
from collections.abc import Mapping, Sequence

from server.builder.classic.image import layer_chain
from server.builder.dockerfile.errors import Warning
from server.builder.dockerfile.ignore import Ignore
from server.builder.dockerfile.lint import ignored
from server.builder.plan.plan import Plan
from server.builder.plan.steps import Copy, Origin, Run


def needed_paths(plans: Sequence[Plan]) -> Mapping[str, Sequence[str]]:
    """Return the paths that the plans read of each context; an empty list for all."""
    paths: dict[str, set[str]] = {}

    def add(origin: Origin | None, sources: Sequence[str]) -> None:
        if origin is not None and origin.step is None:
            paths.setdefault(origin.context, set()).update(source.strip("/") or "." for source in sources)

    for stage in [stage for planned in plans for stage in planned.stages]:
        step = stage.last
        while step is not None:
            operation = step.operation
            if isinstance(operation, Copy):
                add(operation.origin, operation.sources)
            elif isinstance(operation, Run):
                for mount in operation.mounts:
                    add(mount.origin, (mount.options.source,))
            step = step.parent
    return {
        name: () if any(path == "." or path.startswith("..") for path in found) else sorted(found)
        for name, found in paths.items()
    }


async def excluded_files(plans: Sequence[Plan], patterns: Sequence[str] | None) -> Sequence[Warning]:
    """Return findings about copied files of the main context that ``.dockerignore`` excludes."""
    copies = [
        ("Add" if step.operation.add else "Copy", step.operation.sources, step.span)
        for planned in plans
        for stage in planned.stages
        for step in layer_chain(stage.last)
        if isinstance(step.operation, Copy) and step.operation.origin == Origin(context="")
    ]
    if not patterns:
        return ()
    return await asyncio.to_thread(lambda: ignored(copies, Ignore(patterns)))
