"""Exporters: results as a named image, as an archive for the client, or as files in a client's directory."""

import asyncio
import base64
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

from engine.api.client import Engine
from engine.api.services.content import Content
from engine.api.types import Descriptor
from engine.common.errors import internal, invalid, not_implemented
from engine.common.layers.pack import pack_tree, walk
from engine.common.layers.tarwrite import TarWriter
from server.builder.exporters.assemble import Assembler
from server.builder.exporters.export_options import ExportOptions, read
from server.builder.exporters.files import Files, message_of
from server.builder.exporters.provenance import Origins
from server.builder.jobs.job import Job, SolvedTarget
from server.builder.jobs.options import attests
from server.builder.jobs.progress import Vertex
from server.builder.neighbours import Images
from server.builder.operations import selection
from server.builder.session import calls
from server.builder.session.pb import fsutil_pb2
from server.builder.session.session import Session
from server.builder.session.stat import to_go, to_unix
from server.builder.sources.layouts import ClientStore, copy_image
from server.registry import oci
from server.registry.reference import parse


class Exporters:
    """Runs the exporters that a client requested."""

    def __init__(self, engine: Engine, images: Images, files: Files, scratch: str) -> None:
        self._engine, self._images, self._files = engine, images, files
        self._assembler = Assembler(engine, scratch)

    async def export(
        self,
        job: Job,
        session: Session | None,
        made: Sequence[SolvedTarget],
        kind: str,
        attrs: Mapping[str, str],
        number: int,
    ) -> dict[str, str]:
        """Return an exporter's response. Raises NOT_IMPLEMENTED for an unsupported exporter or option."""
        options = read(kind, attrs)
        if not made:
            return {}  # a subrequest was answered, nothing was built
        if options.epoch_ns is not None:
            made = [replace(item, epoch_ns=options.epoch_ns) for item in made]
        if options.rewrite_times and not all(item.epoch_ns is not None for item in made):
            # As BuildKit: without SOURCE_DATE_EPOCH, times are not rewritten.
            options = replace(options, rewrite_times=False)
        if kind in ("image", "moby"):
            return await self._image(job, session, made, attrs, options)
        if session is None:
            raise invalid(f"the exporter {kind} needs a session")
        if kind in ("docker", "oci"):
            return await self._archive(job, session, made, attrs, options, kind, number)
        if len(made) > 1 and not options.split:
            raise not_implemented("the exporter option platform-split=false is not supported for several platforms")
        if kind == "tar":
            return await self._tar(job, session, made, number)
        if kind == "local":
            return await self._local(job, session, made, number)
        raise not_implemented(f"exporter {kind} is not supported")

    def _vertex(self, job: Job, name: str) -> Vertex:
        return Vertex(job.send, name, f"{job.ref} {name}")

    async def _assemble(
        self, job: Job, made: Sequence[SolvedTarget], options: ExportOptions, names: Sequence[str]
    ) -> Descriptor:
        inline = any(entry.Type == "inline" for entry in job.request.Cache.Exports)
        return await self._assembler.image(
            made,
            options,
            names=names,
            inline_cache=inline,
            origins=partial(Origins.from_job, job) if attests({**job.request.FrontendAttrs, **job.options}) else None,
        )

    async def _image(
        self,
        job: Job,
        session: Session | None,
        made: Sequence[SolvedTarget],
        attrs: Mapping[str, str],
        options: ExportOptions,
    ) -> dict[str, str]:
        names = _names(attrs)
        by_digest = attrs.get("push-by-digest") == "true"
        vertex = self._vertex(job, "exporting to image")
        with vertex.running():
            kept = names if attrs.get("store", "true") != "false" and not by_digest else ()
            plain = len(made) == 1 and options == ExportOptions() and not job.request.Cache.Exports
            if plain and not attests(job.options) and await self._images.is_built(made[0].documents.id, kept):
                target = made[0].documents.target
            else:
                with vertex.status("exporting layers"):
                    target = await self._assemble(job, made, options, names)
                with vertex.status(f"writing image {target.digest}"):
                    await self._images.built(target, kept, ref=job.ref)
            for name in kept:
                with vertex.status(f"naming to {name}"):
                    pass
            if attrs.get("push") == "true" or by_digest:
                if session is None:
                    raise invalid("pushing needs a session")
                for name in names:
                    with vertex.status(f"pushing {name}"):
                        ref = f"{parse(name).name}@{target.digest}" if by_digest else name
                        await self._images.push_built(ref, target, session.credentials)
        # No "containerimage.config.digest": clients take it for the image's id, which is the manifest's digest here.
        response = {
            "containerimage.digest": target.digest,
            "containerimage.descriptor": _descriptor(target),
        }
        if names:
            response["image.name"] = ",".join(names)
        return response

    async def _archive(
        self,
        job: Job,
        session: Session,
        made: Sequence[SolvedTarget],
        attrs: Mapping[str, str],
        options: ExportOptions,
        kind: str,
        number: int,
    ) -> dict[str, str]:
        names = _names(attrs)
        vertex = self._vertex(job, f"exporting to {kind} image format")
        with vertex.running():
            with vertex.status("exporting layers"):
                target = await self._assemble(job, made, options, names)
            response = {"containerimage.digest": target.digest}
            if len(made) == 1 and options == ExportOptions():
                response["containerimage.config.digest"] = oci.digest_of(made[0].documents.config)
            if names:
                response["image.name"] = ",".join(names)
            if attrs.get("tar") == "false":
                response["containerimage.descriptor"] = _descriptor(target)
                with vertex.status("copying blobs"):
                    await copy_image(self._engine.content, Content(ClientStore(session, "export")), target)
                return response
            with vertex.status("sending tarball"):
                await session.send_stream(self._images.archive(target, names), metadata=response, exporter=number)
        return response

    async def _tar(self, job: Job, session: Session, made: Sequence[SolvedTarget], number: int) -> dict[str, str]:
        vertex = self._vertex(job, "exporting to client tarball")
        with vertex.running(), vertex.status("sending tarball"):
            await session.send_stream(self._tree(made), metadata={}, exporter=number)
        return {}

    async def _tree(self, made: Sequence[SolvedTarget]) -> AsyncIterator[bytes]:
        """Yield the files of the results as one tar; with several platforms, each in a directory named after it."""
        for item in made:
            prefix = f"{item.platform.replace('/', '_')}/" if len(made) > 1 else ""
            chain = item.documents.chain_id
            if not chain:
                continue
            async with self._files.mounted(chain) as (thread, root):
                async for piece in thread.produce(partial(_pack, root, prefix, item.epoch_ns)):
                    yield piece
        yield bytes(1024)

    async def _local(self, job: Job, session: Session, made: Sequence[SolvedTarget], number: int) -> dict[str, str]:
        """Send the files of the results; with several platforms, each in a directory named after it."""
        vertex = self._vertex(job, "exporting to client directory")
        with vertex.running(), vertex.status("copying files"):
            async with AsyncExitStack() as stack:
                trees: dict[str, Tree] = {}
                for item in made:
                    root: int | None = None
                    if item.documents.chain_id:
                        thread, path = await stack.enter_async_context(self._files.mounted(item.documents.chain_id))
                        root = await thread.run(selection.open_root, path)
                        stack.callback(os.close, root)
                    folder = item.platform.replace("/", "_") if len(made) > 1 else ""
                    trees[folder] = Tree(root, item.epoch_ns)
                await send_trees(session, trees, number)
        return {}


def _descriptor(target: Descriptor) -> str:
    return base64.b64encode(json.dumps(oci.to_json(target)).encode()).decode()


def _names(attrs: Mapping[str, str]) -> list[str]:
    return [str(parse(name).tagged()) for name in attrs.get("name", "").split(",") if name]


def _pack(root: str, prefix: str, epoch_ns: int | None, out: Callable[[bytes], object]) -> None:
    """Write the entries of a tree's tar, without the end-of-archive blocks."""
    writer = TarWriter(out)
    pack_tree(root, writer, prefix=prefix, mtime_ns=epoch_ns)
    writer.flush()


@dataclass(frozen=True, slots=True)
class Tree:
    """Files to send: their root (``None`` for no files), and the time that they get (``None``: their own)."""

    root: int | None
    epoch_ns: int | None


async def send_trees(session: Session, trees: Mapping[str, Tree], number: int) -> None:
    """Send trees to the client, which writes them to its directory: fsutil's transfer with the daemon as sender.

    ``trees``: by the subdirectory of each ("" for none).
    """
    call = calls.stream(session.connection, calls.SEND_TREE, (("buildkit-attachable-exporter-id", str(number)),))
    entries: list[tuple[int | None, str, fsutil_pb2.Stat]] = []
    for folder, tree in sorted(trees.items()):
        root, epoch_ns = tree.root, tree.epoch_ns
        if folder:
            made_ns = time.time_ns() if epoch_ns is None else epoch_ns
            entries.append((None, "", fsutil_pb2.Stat(path=folder, mode=to_go(stat.S_IFDIR | 0o755), modTime=made_ns)))
        for message in await asyncio.to_thread(_entries, root) if root is not None else ():
            path = message.path
            if epoch_ns is not None:
                message.modTime = epoch_ns
            if folder:
                message.path = f"{folder}/{path}"
                if message.linkname and stat.S_ISREG(to_unix(message.mode)):
                    message.linkname = f"{folder}/{message.linkname}"
            entries.append((root, path, message))
    packet = fsutil_pb2.Packet

    async def describe() -> None:
        for at in range(0, len(entries), 500):
            some = entries[at : at + 500]
            await call.write_all(packet(type=packet.PACKET_STAT, stat=message) for _, _, message in some)
        await call.write(packet(type=packet.PACKET_STAT))

    try:
        await describe()
        while True:
            request = await call.read()
            if request is None:
                call.check()
                raise internal("the client ended the transfer early")
            if request.type == packet.PACKET_FIN:
                await call.write(packet(type=packet.PACKET_FIN))
                call.done_writing()
                return
            if request.type == packet.PACKET_ERR:
                raise invalid(request.data.decode("utf-8", "replace"))
            root, path, _ = entries[request.ID]
            assert root is not None
            async for data in _content(root, path):
                await call.write(packet(type=packet.PACKET_DATA, ID=request.ID, data=data))
            await call.write(packet(type=packet.PACKET_DATA, ID=request.ID))
    finally:
        call.cancel()


def _entries(root: int) -> list[fsutil_pb2.Stat]:
    """Return every file below the root, in fsutil's order."""
    found: list[fsutil_pb2.Stat] = []
    seen: dict[tuple[int, int], str] = {}
    for node in walk(root):
        link = os.readlink(node.name, dir_fd=node.parent) if stat.S_ISLNK(node.stat.st_mode) else ""
        if stat.S_ISREG(node.stat.st_mode) and node.stat.st_nlink > 1:
            inode = (node.stat.st_dev, node.stat.st_ino)
            link = seen.setdefault(inode, node.path)
            link = "" if link == node.path else link
        found.append(message_of(node.path, node.stat, link))
    return found


async def _content(root: int, path: str) -> AsyncIterator[bytes]:
    fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        while data := await asyncio.to_thread(os.read, fd, 32 * 1024):
            yield data
    finally:
        os.close(fd)
