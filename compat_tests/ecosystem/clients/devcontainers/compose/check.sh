test "$(id -un) $PWD" = "dev /workspace"
getent hosts db
