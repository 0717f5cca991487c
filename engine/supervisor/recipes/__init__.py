"""One copy of a layer on the disk: blobs without a file, which are re-created from the snapshot of their layer.

A layer is on the disk twice: as the blob that was pulled, built or loaded, and as the files of its snapshot. With
``drop_blobs`` the supervisor replaces the blob's file by a *recipe* (``engine.common.layers.recipe``) once the layer's
files are on the disk. The blob remains a blob for every client: ``Content.Info``, ``List`` and ``Read``, descriptors
and ``Diff.Apply`` work as before, and its labels and references are unchanged.

``drop`` replaces the file, in this order, so that a crash or a power failure at any time loses nothing:

1. The recipe is written, under a temporary name. It describes the blob's bytes by construction: each range of a file
   was compared with them.
2. The recipe is on the disk under its name (fsync of the file and the directory).
3. The blob is re-created from that recipe, and has the blob's digest.
4. A row in the metadata says that the blob has a recipe, and is on the disk.
5. The blob's file is removed.

A blob that can't be re-created keeps its file; a row says so, and it isn't tried again.

``recreate`` makes the bytes when they are read: complete, in an unnamed file, with the digest verified before the first
byte is passed on. Readers at the same time share the file, which is kept some seconds for a reader that asks in pieces.
A changed snapshot, a damaged recipe and an encoder that a new version of its library has changed are errors; wrong
bytes are never returned.

The garbage collector keeps the snapshot while the blob exists (``sources.SOURCES``), and removes recipe and blob
together. A snapshot that a blob needs can't be removed otherwise.

Recipes are read whether or not ``drop_blobs`` is set.
"""
