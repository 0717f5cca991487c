"""The blobs that a history record names by digest: results, provenance, and the error of a failed build."""

import base64
import json
from collections.abc import Mapping

from server.builder.exporters.provenance import PREDICATE, STATEMENT, Origins, predicate
from server.builder.jobs.job import Job
from server.builder.session.pb import control_pb2 as pb
from server.registry import oci

LOG = "application/vnd.buildkit.status.v0"
FAILURE = "application/vnd.googeapis.google.rpc.status+proto"
"""The media type as BuildKit spells it."""


def descriptor(media_type: str, data: bytes) -> pb.Descriptor:
    return pb.Descriptor(media_type=media_type, digest=oci.digest_of(data), size=len(data))


def attach(record: pb.BuildHistoryRecord, job: Job) -> dict[str, bytes]:
    """Add the build's outcome to the record; return the blobs that the record names and no image holds."""
    blobs: dict[str, bytes] = {}
    if job.error:
        if job.failure:
            record.externalError.CopyFrom(descriptor(FAILURE, job.failure))
            blobs[record.externalError.digest] = job.failure
        return blobs
    if image := _image(job.response):
        record.Result.ResultDeprecated.CopyFrom(image)
        record.Result.Results[0].CopyFrom(image)
    for made in job.results:
        data = json.dumps(predicate(Origins.from_job(job, made)), indent=2).encode()
        item = descriptor(STATEMENT, data)
        item.annotations["in-toto.io/predicate-type"] = PREDICATE
        blobs[item.digest] = data
        result = record.Result if len(job.results) == 1 else record.Results[made.platform]
        result.Attestations.append(item)
    return blobs


def _image(response: Mapping[str, str]) -> pb.Descriptor | None:
    """The image that an exporter created."""
    text = response.get("containerimage.descriptor")
    if not text:
        return None
    found = json.loads(base64.b64decode(text))
    return pb.Descriptor(media_type=found["mediaType"], digest=found["digest"], size=found["size"])
