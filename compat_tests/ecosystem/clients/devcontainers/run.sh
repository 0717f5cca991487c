# The CLI of development containers: an image, a build with a feature, a compose project.
for workspace in image build compose; do
  devcontainer up --workspace-folder $workspace
  devcontainer exec --workspace-folder $workspace sh check.sh
done
devcontainer build --workspace-folder build --image-name devcontainers-built:1
docker run --rm devcontainers-built:1 hello | tee greeting
grep -x hey greeting
