"""A registry that has one manifest under every name, and for some digests content that need not have that digest."""

from __future__ import annotations

from collections.abc import Mapping

from compat_tests.support.images import digest
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class ClaimingRegistry(LoopbackServer):
    """``blobs``: by digest. A blob that it lacks is empty, in an answer with status 200."""

    def __init__(self, manifest: bytes, blobs: Mapping[str, bytes]) -> None:
        class Handler(QuietHandler):
            def _answer(self) -> None:
                media_type, data, claimed = "application/octet-stream", b"", ""
                if "/manifests/" in self.path:
                    media_type, data, claimed = MANIFEST, manifest, digest(manifest)
                elif "/blobs/" in self.path and (wanted := self.path.rpartition("/")[2]) in blobs:
                    data, claimed = blobs[wanted], wanted
                self.send_response(200)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(data)))
                if claimed:
                    self.send_header("Docker-Content-Digest", claimed)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_GET = do_HEAD = _answer

        super().__init__(Handler)
