#!/usr/bin/env bash
# sudo ./deploy/install.sh [--docker-sock] [PACKAGE.deb]   installs or upgrades Wharf as a service; containers continue
# sudo ./deploy/install.sh --remove [--stop-containers]    removes the programs; keeps data and configuration
# sudo ./deploy/install.sh --purge [--stop-containers]     removes images, volumes, containers and configuration too
#
# --docker-sock       Wharf also serves /var/run/docker.sock; refused if another Docker Engine does
# --stop-containers   without it, Wharf is not removed while containers run
# PACKAGE.deb         what package.sh has built; without it, it is built from the sources of this folder
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$ROOT/deploy/lib.sh"
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

ACTION=install DOCKER_SOCK=no PACKAGE=""
for word in "$@"; do
  case $word in
    --remove | --purge) ACTION=${word#--} ;;
    --docker-sock) DOCKER_SOCK=yes ;;
    --stop-containers) export WHARF_STOP_CONTAINERS=yes ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "unknown option: $word" ;;
    *) PACKAGE=$(realpath -e -- "$word") || exit 1 ;;
  esac
done
need_root "$@"
system_environment
[ -d /run/systemd/system ] || die "this machine does not run systemd; deploy/quickstart.sh starts Wharf without it"
command -v apt-get >/dev/null || die "this machine has no apt-get; deploy/README.md has the installation by hand"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
# apt-get reads the package as a user of its own.
chmod 755 "$WORK"
APT_LOG=$WORK/apt.log

# apt_or_die SECONDS ARGUMENTS...: apt-get; prints the end of what it wrote if it fails.
apt_or_die() {
  if ! apt "$@" >"$APT_LOG" 2>&1; then
    tail -n 25 "$APT_LOG" >&2
    die "apt-get failed"
  fi
}

docker_sock_free() {
  # Wharf's own, of an earlier run.
  systemctl -q is-active wharf-docker.socket 2>/dev/null && return 0
  local reason
  reason=$(python3 "$ROOT/deploy/engine_client.py" free /run/docker.sock 2>&1) || die "$reason"
  ! systemctl -q is-enabled docker.socket 2>/dev/null ||
    die "docker.socket is enabled, another Docker Engine's: systemctl disable --now docker.socket docker.service"
}

install_wharf() {
  install_missing python3
  [ "$DOCKER_SOCK" = no ] || docker_sock_free
  if [ -z "$PACKAGE" ]; then
    say "Building the package"
    PACKAGE=$("$ROOT/deploy/package.sh" "$WORK")
  fi
  say "Installing $(basename "$PACKAGE")"
  # A recommended package whose command is there from another vendor is not replaced.
  install_missing "docker-cli?docker" "crun?crun" "runc?runc" "tini?tini"
  local options=(--no-install-recommends --reinstall --allow-downgrades)
  apt 900 install "${options[@]}" "$PACKAGE" >"$APT_LOG" 2>&1 ||
    { apt 300 update >"$APT_LOG" 2>&1 && apt_or_die 900 install "${options[@]}" "$PACKAGE"; }
  if [ "$DOCKER_SOCK" = yes ]; then
    systemctl enable wharf-docker.socket 2>/dev/null
    # Containers continue. A socket can't be added to a running service.
    systemctl restart wharf.service
    systemctl -q is-active wharf-docker.socket ||
      die "/run/docker.sock could not be opened: journalctl -u wharf-docker.socket"
  fi
  # An administrator may have disabled it: then the first client starts it.
  ! systemctl -q is-enabled wharf.service || systemctl -q is-active wharf.service ||
    die "the engine does not run: journalctl -u wharf"
  note "installed: $(/usr/sbin/wharfd --version)"
  note "its socket: /run/wharf/docker.sock$([ "$DOCKER_SOCK" = no ] || echo " and /var/run/docker.sock")"
  note "who may use it, as root of this machine: usermod -aG docker USER"
  note "configuration: /etc/wharf/daemon.json, then systemctl reload wharf; manual: man wharfd"
}

case $ACTION in
  install) install_wharf ;;
  remove | purge)
    say "Removing Wharf"
    apt_or_die 600 "$ACTION" wharf
    grep -a " is kept: " "$APT_LOG" || true
    if [ "$ACTION" = remove ]; then note "kept: /var/lib/wharf and /etc/wharf ($0 --purge removes them)"; fi
    ;;
esac
