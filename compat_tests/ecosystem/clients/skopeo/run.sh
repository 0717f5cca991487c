# Images to and from the engine by the transport docker-daemon.
skopeo inspect --daemon-host "$DOCKER_HOST" docker-daemon:busybox:latest
skopeo copy --src-daemon-host "$DOCKER_HOST" docker-daemon:busybox:latest oci:layout:1
skopeo copy --dest-daemon-host "$DOCKER_HOST" oci:layout:1 docker-daemon:skopeo-copied:1
docker run --rm skopeo-copied:1 true
