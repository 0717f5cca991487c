test "$(hello) $(id -un)" = "hey dev"
