"""containerd's labels that have a meaning for the server: what the garbage collector keeps, and what a layer contains.

See containerd's ``docs/garbage-collection.md``.
"""

#: Of a blob or a snapshot: the collector keeps it without a reference.
GC_ROOT = "containerd.io/gc.root"
#: Of a lease: an RFC 3339 time, after which it protects nothing.
GC_EXPIRE = "containerd.io/gc.expire"
#: Of a lease: the labels of its resources are not followed.
GC_FLAT = "containerd.io/gc.flat"
#: The start of the labels that reference blobs (``…content[./…]``) and snapshots (``…snapshot.<snapshotter>[/…]``).
GC_REF = "containerd.io/gc.ref."
#: Of a layer's blob: the digest of its plain tar, the diff id.
UNCOMPRESSED = "containerd.io/uncompressed"
#: Of a blob in an answer of our supervisor, never stored: the blob has no file, and this many bytes re-create it.
STORED = "wharf.stored"
