"""BuildKit's build history: records of builds, the blobs they name, and the queries of clients."""
