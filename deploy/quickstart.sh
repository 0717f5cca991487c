#!/usr/bin/env bash
# sudo ./deploy/quickstart.sh          installs missing packages, starts the engine, runs a first container
# sudo ./deploy/quickstart.sh --ui     the same with the page for browsers; prints a link to it
# sudo ./deploy/quickstart.sh --stop   stops containers and engine, removes bridge and rules; keeps images and volumes
#
# When it is run again, it updates the installed engine to the sources of this folder. Containers continue to run.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$ROOT/deploy/lib.sh"
# shellcheck source=deploy/engine.sh
. "$ROOT/deploy/engine.sh"
need_root "$@"
system_environment
if dpkg-query -W -f '${db:Status-Status}' wharf 2>/dev/null | grep -qx installed && [ -z "${WHARF_HOME:-}" ]; then
  die "Wharf is installed as a service: systemctl start wharf. deploy/install.sh upgrades and removes it"
fi

HOME_DIR=${WHARF_HOME:-/usr/local/lib/wharf}
DATA=${WHARF_DATA_ROOT:-/var/lib/wharf}
EXEC=${WHARF_EXEC_ROOT:-/run/wharf}
LOG=${WHARF_LOG:-/var/log/wharf.log}
BRIDGE=${WHARF_BRIDGE:-wharf0}
PAGE=${WHARF_PAGE:-127.0.0.1:9780}
SOCKET=$EXEC/docker.sock
MARK=WHARF_QUICKSTART=$EXEC
NETWORK=$BRIDGE
ENGINE=("$HOME_DIR/bin/python" "$ROOT/deploy/engine_client.py")
NOTES=/var/lib/wharf-quickstart${WHARF_HOME:+-$(basename "$WHARF_HOME")}
APT_LOG=/var/log/wharf-apt.log
UNIT=wharf-quickstart.service

docker_here() { timeout -k 5 "${1}" docker -H "unix://$SOCKET" "${@:2}" </dev/null; }
under_systemd() { [ -d /run/systemd/system ]; }
page_link() { timeout 30 "$HOME_DIR/bin/wharf" -H "unix://$SOCKET" ui; }
answers() { [ -S "$SOCKET" ] && docker_here 10 version >/dev/null 2>&1; }

daemon_stop() {
  if under_systemd && systemctl cat "$UNIT" >/dev/null 2>&1; then
    timeout 90 systemctl stop "$UNIT" || true
  fi
  local pid
  pid=$(cat "$EXEC/wharfd.pid" 2>/dev/null) || return 0
  # Another process may have the pid by now.
  marked "$MARK" | grep -qx "$pid" || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  local until=$((SECONDS + 60))
  while [ -e "/proc/$pid" ] && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
}

stop() {
  say "Stopping Wharf"
  engine_end daemon_stop
  if under_systemd; then
    rm -f "/run/systemd/system/$UNIT"
    systemctl daemon-reload
  fi
  cgroups_restore "$NOTES/cgroups-mounted"
  note "stopped. Images, volumes and stopped containers are kept in $DATA"
}

start() {
  mkdir -p "$NOTES" "$(dirname "$LOG")"
  say "Packages of the OS"
  install_missing "docker-cli?docker" "crun?crun" "runc?runc" "nftables?nft" "iproute2?ip" "tini?tini" \
    "busybox-static" "procps?ps" "ca-certificates"
  note "all there"

  say "Python"
  choose_python
  make_venv "$HOME_DIR" "nvidia"
  local changed
  changed=$(install_wharf)
  note "Wharf is in $HOME_DIR"

  say "The engine"
  cgroups_complete "$NOTES/cgroups-mounted"
  if [ "$changed" = yes ] && answers; then
    note "restarting it with the new version; containers continue"
    daemon_stop
  fi
  if [ "$WITH_PAGE" = yes ] && answers && ! page_link >/dev/null 2>&1; then
    note "restarting it with the page; containers continue"
    daemon_stop
  fi
  if answers; then
    note "runs already"
  else
    launch
    local until=$((SECONDS + 90))
    until answers; do
      [ "$SECONDS" -lt "$until" ] || { tail -n 30 "$LOG" >&2; die "the engine did not answer within 90 s (log: $LOG)"; }
      sleep 0.1
    done
    note "started; log: $LOG"
  fi

  say "A first image and container"
  if ! docker_here 30 image inspect busybox:latest >/dev/null 2>&1; then
    "$HOME_DIR/bin/python" "$ROOT/deploy/busybox_image.py" | timeout 120 docker -H "unix://$SOCKET" load
  fi
  echo "\$ docker -H unix://$SOCKET run --rm busybox echo 'Hello from a container on Wharf'"
  docker_here 120 run --rm busybox echo "Hello from a container on Wharf"

  cat <<TEXT

Wharf runs. Type next:

  export DOCKER_HOST=unix://$SOCKET
  docker run --rm -it busybox
  docker run -d --name web -p 8080:80 busybox sh -c 'echo hi > /tmp/index.html; httpd -f -h /tmp'
  docker ps

  sudo $ROOT/deploy/quickstart.sh --stop    stops it again
TEXT
  if [ "$WITH_PAGE" = yes ]; then
    printf '\nThe page, for one login within a minute (later: sudo %s -H unix://%s ui):\n\n  %s\n' \
      "$HOME_DIR/bin/wharf" "$SOCKET" "$(page_link)"
  fi
}

# Installs this folder's sources if they differ from the installed ones; prints yes if it has, else no.
install_wharf() {
  local sum
  sum=$(cd "$ROOT" && find pyproject.toml server engine api_models -type f -not -name '*.pyc' -print0 | sort -z |
    xargs -0 sha256sum | sha256sum | cut -c1-32)
  if [ "$(cat "$HOME_DIR/.wharf-sources" 2>/dev/null)" = "$sum" ]; then
    echo no
    return
  fi
  install_sources "$HOME_DIR"
  cp "$ROOT/README.md" "$HOME_DIR/README.md"
  echo "$sum" >"$HOME_DIR/.wharf-sources"
  echo yes
}

launch() {
  local command=("$HOME_DIR/bin/wharfd" --data-root "$DATA" --exec-root "$EXEC" --pidfile "$EXEC/wharfd.pid"
    -H "unix://$SOCKET" --bridge-name "$BRIDGE")
  [ "$WITH_PAGE" = no ] || command+=(--ui "$PAGE")
  mkdir -p "$EXEC"
  chmod 711 "$EXEC"
  if under_systemd; then
    # A unit that exists until the next boot; those for permanent use are in deploy/systemd.
    sed -e "s#^ExecStart=.*#ExecStart=${command[*]}#" -e '/^Requires=wharf.socket/d' -e '/^\[Install\]/,$d' \
      -e "s#^\[Service\]#[Service]\nEnvironment=$MARK\nStandardOutput=append:$LOG\nStandardError=append:$LOG#" \
      "$ROOT/deploy/systemd/wharf.service" >"/run/systemd/system/$UNIT"
    systemctl daemon-reload
    systemctl reset-failed "$UNIT" 2>/dev/null || true
    timeout 150 systemctl start "$UNIT" || { tail -n 30 "$LOG" >&2; die "the engine did not start (log: $LOG)"; }
  else
    env -i "PATH=$PATH" "LANG=${LANG:-C.UTF-8}" "$MARK" setsid --fork "${command[@]}" </dev/null >>"$LOG" 2>&1
  fi
}

WITH_PAGE=no
case ${1-} in
  "") start ;;
  --ui) WITH_PAGE=yes && start ;;
  --stop) stop ;;
  *) die "usage: $0 [--ui | --stop]" ;;
esac
