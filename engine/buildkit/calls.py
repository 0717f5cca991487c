"""The methods that a session's client serves, as callables on a channel: paths and message types in one table."""

from typing import Any

import grpc
from google.protobuf.message import Message

from engine.buildkit.pb import auth_pb2, filesync_pb2, fsutil_pb2, secrets_pb2, ssh_pb2, upload_pb2

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
PULL_FILES = "/moby.filesync.v1.FileSync/DiffCopy"
SEND_FILES = "/moby.filesync.v1.FileSend/DiffCopy"
SEND_TREE = f"{SEND_FILES}#tree"
"""The same method carries one file as bytes, or a tree as packets: which, the client's output decides."""
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
UPLOAD = "/moby.upload.v1.Upload/Pull"

_TYPES: dict[str, tuple[type[Message], type[Message]]] = {
    CREDENTIALS: (auth_pb2.CredentialsRequest, auth_pb2.CredentialsResponse),
    PULL_FILES: (fsutil_pb2.Packet, fsutil_pb2.Packet),
    SEND_TREE: (fsutil_pb2.Packet, fsutil_pb2.Packet),
    SEND_FILES: (filesync_pb2.BytesMessage, filesync_pb2.BytesMessage),
    GET_SECRET: (secrets_pb2.GetSecretRequest, secrets_pb2.GetSecretResponse),
    CHECK_AGENT: (ssh_pb2.CheckAgentRequest, ssh_pb2.CheckAgentResponse),
    FORWARD_AGENT: (ssh_pb2.BytesMessage, ssh_pb2.BytesMessage),
    UPLOAD: (upload_pb2.BytesMessage, upload_pb2.BytesMessage),
}


def unary(channel: grpc.aio.Channel, method: str) -> "grpc.aio.UnaryUnaryMultiCallable[Any, Any]":
    """One request, one answer."""
    request, response = _TYPES[method]
    return channel.unary_unary(method, request.SerializeToString, response.FromString)


def stream(channel: grpc.aio.Channel, method: str) -> "grpc.aio.StreamStreamMultiCallable[Any, Any]":
    """A stream each way."""
    request, response = _TYPES[method]
    return channel.stream_stream(method.partition("#")[0], request.SerializeToString, response.FromString)
