"""The supervisor's metadata as a tree::

    namespace                    separates everything below except blobs
    ├── image       name         → a descriptor (media type, digest, size, annotations), labels
    ├── content     digest       a blob in this namespace: labels (gc.ref.* reference others)
    ├── ingest      ref          a blob being written: the folder of its bytes, expected digest, expiry
    ├── snapshot    snapshotter/key   → parent key; the number of its directory
    ├── container   id           the record as its client wrote it (a protobuf), and its snapshot
    └── lease       id           labels (gc.expire, gc.flat)
        └── lease_resource       type (content, ingests, snapshots/<name>), id

    blob            digest       bytes in the content store, shared by the namespaces
    └── recipe      digest       the blob has no file: it is re-created from a snapshot (number; null: it can't be)

Times are nanoseconds since the epoch; labels and annotations are JSON objects. A row is written before its reply. The
bytes of a blob and the directory of a snapshot are created before their row and deleted after it, so that a crash
leaves at most files without a row, which the next start removes.
"""

SCHEMA_1 = """
CREATE TABLE namespace (name TEXT PRIMARY KEY, labels TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE content (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, labels TEXT NOT NULL,
    PRIMARY KEY (namespace, digest)
) WITHOUT ROWID;
CREATE INDEX content_digest ON content (digest);

CREATE TABLE ingest (
    namespace TEXT NOT NULL, ref TEXT NOT NULL, folder TEXT NOT NULL,
    total INTEGER NOT NULL, expected TEXT NOT NULL, started INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (namespace, ref)
) WITHOUT ROWID;

CREATE TABLE image (
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, annotations TEXT NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, labels TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;

CREATE TABLE container (
    namespace TEXT NOT NULL, id TEXT NOT NULL,
    snapshotter TEXT NOT NULL, snapshot_key TEXT NOT NULL, labels TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (namespace, id)
);

CREATE TABLE lease (
    namespace TEXT NOT NULL, id TEXT NOT NULL, created INTEGER NOT NULL, labels TEXT NOT NULL,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;

CREATE TABLE lease_resource (
    namespace TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (namespace, lease, type, id),
    FOREIGN KEY (namespace, lease) REFERENCES lease (namespace, id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE snapshot (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, snapshotter TEXT NOT NULL, key TEXT NOT NULL,
    kind INTEGER NOT NULL, parent TEXT NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, labels TEXT NOT NULL,
    size INTEGER, inodes INTEGER,
    UNIQUE (namespace, snapshotter, key)
);
CREATE INDEX snapshot_parent ON snapshot (namespace, snapshotter, parent);
"""

#: Layers whose files may not be on the disk yet, with the id of the boot in which they were committed.
SCHEMA_2 = "CREATE TABLE unsettled (number INTEGER PRIMARY KEY, boot TEXT NOT NULL);"

#: What is known of re-creating a blob (``engine.supervisor.recipes``). ``stored``: the bytes of the recipe.
SCHEMA_3 = """
CREATE TABLE recipe (
    digest TEXT PRIMARY KEY REFERENCES blob (digest) ON DELETE CASCADE,
    snapshot INTEGER, stored INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX recipe_snapshot ON recipe (snapshot);
"""

#: Each schema change is another entry; ``user_version`` counts the entries that a database has.
MIGRATIONS: tuple[str, ...] = (SCHEMA_1, SCHEMA_2, SCHEMA_3)
