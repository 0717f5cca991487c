"""BuildKit's front end: buildx, bake, compose, `POST /build?version=2`, and requests by its gRPC API."""
