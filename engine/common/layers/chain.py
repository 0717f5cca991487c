"""Chain ids: the names of layers on their parents (OCI image specification, ``config.md``, "Layer ChainID")."""

import hashlib


def chain_id(parent: str, diff_id: str) -> str:
    """The chain id of a layer. ``parent``: the chain id below it, "" for none; ``diff_id``: the digest of its plain
    tar."""
    return f"sha256:{hashlib.sha256(f'{parent} {diff_id}'.encode()).hexdigest()}" if parent else diff_id
