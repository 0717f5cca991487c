# Functions that end an engine and remove its traces, for quickstart.sh and the Debian package. Sourcing it changes
# nothing. They read these variables:
#   EXEC, DATA       the engine's roots
#   NETWORK          the name of its network (engine_client.py settings)
#   MARK             NAME=VALUE in the environment of all its processes
#   ENGINE           the command of engine_client.py, an array
# shellcheck shell=bash disable=SC2153

# engine_end STOP_DAEMON: stops all containers and, with the function STOP_DAEMON, the daemon; then removes processes,
# mounts, bridges, firewall rules, cgroups and the run-time directory. Images, volumes and stopped containers remain.
engine_end() {
  timeout 180 "${ENGINE[@]}" stop "$EXEC" 5 || true
  "$1"
  end_marked "$MARK" 20
  unmount_under "$EXEC"
  unmount_under "$DATA"
  links_remove
  # With the engine's own code: its table, and its rules in the chains of other firewalls.
  timeout 60 "${ENGINE[@]}" rules "$NETWORK" || true
  # The cgroups of shims and containers. rmdir fails, and they remain, while another Wharf uses them.
  rmdir /sys/fs/cgroup/{wharf-shims,wharf} /sys/fs/cgroup/*/{wharf-shims,wharf} 2>/dev/null || true
  rm -rf --one-file-system "$EXEC"
}

# Removes the bridges and other links of the engine, which have its name as alias.
links_remove() {
  local link
  command -v ip >/dev/null || return 0
  ip -o link | sed -n "s/^[0-9]*: \([^:@ ]*\).*alias wharf:$NETWORK\$/\1/p" | while read -r link; do
    ip link del "$link" 2>/dev/null || true # the other end of a pair is gone with the first
  done
}

# marked NAME=VALUE: prints the pids of the processes with this in their environment, which all processes of an engine
# inherit.
marked() {
  local file pid
  for file in /proc/[0-9]*/environ; do
    pid=${file#/proc/}
    pid=${pid%/environ}
    [ "$pid" != $$ ] || continue
    { tr '\0' '\n' <"$file" | grep -qxF "$1"; } 2>/dev/null && echo "$pid"
  done
  return 0
}

# end_marked NAME=VALUE SECONDS: sends SIGTERM to these processes, and SIGKILL after SECONDS.
end_marked() {
  local mark=$1 pids
  pids=$(marked "$mark")
  [ -n "$pids" ] || return 0
  # shellcheck disable=SC2086
  kill -TERM $pids 2>/dev/null || true
  local until=$((SECONDS + $2))
  while [ -n "$(marked "$mark")" ]; do
    if [ "$SECONDS" -ge "$until" ]; then
      # shellcheck disable=SC2046
      kill -KILL $(marked "$mark") 2>/dev/null || true
      sleep 0.2
      break
    fi
    sleep 0.2
  done
}

# unmount_under DIR: unmounts everything at and below DIR, the deepest mount first.
unmount_under() {
  local point
  [ -e /proc/self/mountinfo ] || return 0 # a chroot
  awk '{print $5}' /proc/self/mountinfo | { grep -E "^$1(/|$)" || true; } | sort -r | while read -r point; do
    # shellcheck disable=SC2059 # the kernel writes blanks as \040, which printf reads
    umount -l "$(printf "$point")" 2>/dev/null || true
  done
}
