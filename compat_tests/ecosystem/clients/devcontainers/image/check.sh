test "$(cat /made) $COLOUR $(id -un)" = "made blue root"
mountpoint -q /data
