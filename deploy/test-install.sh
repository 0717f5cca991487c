#!/usr/bin/env bash
# sudo ./deploy/test-install.sh [--kexec] [PACKAGE.deb]
#
# Tests the installation on a machine that may be lost: fresh, with systemd, without another Docker Engine. Installs
# Wharf, runs containers as root and as a member of the group docker, and asks for a reboot. When it is run again after
# the reboot, it checks that the containers are back, upgrades under a running container, removes, installs again,
# purges, and compares the machine with its state before. --kexec boots by itself; something must run the script again.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$ROOT/deploy/lib.sh"
need_root "$@"
system_environment

STATE=/var/tmp/wharf-test-install
APT_LOG=$STATE/apt.log
KEXEC=no PACKAGE=""
for word in "$@"; do
  case $word in
    --kexec) KEXEC=yes ;;
    *) PACKAGE=$(realpath -e -- "$word") ;;
  esac
done
mkdir -p "$STATE"
chmod 755 "$STATE"
FAILED=0

fail() { printf 'FAILED: %s\n' "$*" >&2; FAILED=1; }
# check WHAT COMMAND...: reports whether the command succeeds.
check() {
  if "${@:2}" >"$STATE/output" 2>&1; then
    note "ok: $1"
  else
    fail "$1"
    sed 's/^/     | /' "$STATE/output" >&2
  fi
}
# fails WHAT TEXT COMMAND...: reports whether the command fails and prints the text.
fails() {
  if "${@:3}" >"$STATE/output" 2>&1 || ! grep -qF -- "$2" "$STATE/output"; then
    fail "$1"
    sed 's/^/     | /' "$STATE/output" >&2
  else
    note "ok: $1"
  fi
}
# same WHAT EXPECTED FOUND
same() { if [ "$2" = "$3" ]; then note "ok: $1"; else fail "$1: expected '$2', found '$3'"; fi; }
wait_for() { for _ in $(seq 120); do if "${@}" >/dev/null 2>&1; then return 0; fi; sleep 1; done; return 1; }
wharf() { timeout 300 docker -H unix:///run/wharf/docker.sock "$@" </dev/null; }
field() { wharf inspect -f "$2" "$1"; }
member() { runuser -u wharf-member -- timeout 300 docker "$@" </dev/null; }
stranger() { runuser -u nobody -- timeout 300 docker "$@" </dev/null; }

# The machine as it is: files that outlive a boot, users and groups, and what an engine could leave in the kernel.
machine() {
  local path skip=()
  # Other mounts, what this test and apt write, the kernel's and systemd's own, and copies of /etc/passwd and its like.
  for path in /proc /sys /run /tmp /mnt "$STATE" "$ROOT" /var/cache /var/log '/var/lib/dpkg/*' '/var/lib/apt/*' \
    /var/lib/project /var/lib/systemd '/var/tmp/systemd-*' '/etc/*-'; do
    skip+=(-path "$path" -prune -o)
  done
  find / -xdev "${skip[@]}" -printf '%p %y\n' | LC_ALL=C sort
  getent group | sed 's/^/group /'
  getent passwd | sed 's/^/user /'
  traces
}

# Of the kernel and of /run: only what has one of the engine's names.
traces() {
  find /run -xdev \( -name '*wharf*' -o -path '/run/docker*' \) | sed 's/^/run /'
  awk '{ print "mount", $5 }' /proc/self/mountinfo | grep -E 'wharf|overlay2?/|netns' || true
  ip -o link | grep -Eo '(wharf|br-|veth)[^:@ ]*' | sed 's/^/link /' || true
  nft list ruleset 2>/dev/null | grep wharf | sed 's/^/rule /' || true
  find /sys/fs/cgroup -type d \( -name '*wharf*' -o -name 'docker*' \) | sed 's/^/cgroup /'
  pgrep -l '^(wharf|crun|runc)' | sed 's/^/process /' || true
  # A removed package's units are masked until it is purged.
  systemctl list-unit-files --no-legend 'wharf*' 2>/dev/null | grep -v masked | sed 's/^/unit /' || true
}

# A package of the same files with a higher version, that `docker version` shows.
newer_package() {
  local tree=$STATE/newer version
  version=$(dpkg-deb -f "$STATE/wharf.deb" Version)
  rm -rf "$tree"
  dpkg-deb -R "$STATE/wharf.deb" "$tree"
  sed -i "s/^Version: .*/Version: $version+newer/" "$tree/DEBIAN/control"
  sed -i 's/+wharf\.[0-9.]*/+wharf.99/' "$tree"/usr/lib/wharf/lib/python3*/site-packages/server/version.py
  rm -f "$tree"/usr/lib/wharf/lib/python3*/site-packages/server/__pycache__/version.*
  dpkg-deb -Znone --build "$tree" "$STATE/newer.deb" >/dev/null
  rm -rf "$tree"
}

before_boot() {
  say "Before the installation"
  ! systemctl -q is-active docker.service || die "a dockerd runs on this machine"
  # What remains when Wharf is removed: the packages that it depends on, and an image's source.
  install_missing "docker-cli?docker" "crun?crun" "runc?runc" "nftables?nft" "iproute2?ip" "tini?tini" "procps?ps" \
    ca-certificates busybox-static libstdc++6
  if [ -z "$PACKAGE" ]; then PACKAGE=$("$ROOT/deploy/package.sh" "$STATE"); fi
  cp "$PACKAGE" "$STATE/wharf.deb"
  python3 "$ROOT/deploy/busybox_image.py" >"$STATE/busybox.tar"
  machine >"$STATE/before"

  say "Installation"
  python3 -c '
import socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/docker.sock")
listener.listen()
time.sleep(600)' &
  local other=$!
  wait_for test -S /run/docker.sock
  fails "--docker-sock is refused while another engine listens" "another Docker Engine listens on /run/docker.sock" \
    "$ROOT/deploy/install.sh" --docker-sock "$STATE/wharf.deb"
  systemd-run -q --unit wharf-quickstart.service sleep 600
  fails "an installation is refused beside the quickstart's engine" "end it first: deploy/quickstart.sh --stop" \
    "$ROOT/deploy/install.sh" "$STATE/wharf.deb"
  systemctl stop wharf-quickstart.service
  check "an installation without it" "$ROOT/deploy/install.sh" "$STATE/wharf.deb"
  systemctl enable -q wharf-docker.socket
  systemctl restart wharf.service
  same "the unit refuses the other engine's path" failed "$(systemctl is-active wharf-docker.socket || true)"
  systemctl disable -q wharf-docker.socket
  check "the service runs all the same" systemctl -q is-active wharf.service
  kill "$other"
  wait "$other" 2>/dev/null || true
  rm -f /run/docker.sock
  same "socket" "srw-rw---- root docker" "$(stat -c '%A %U %G' /run/wharf/docker.sock)"
  same "enabled" "enabled enabled disabled" \
    "$(systemctl is-enabled wharf.service wharf.socket wharf-docker.socket | tr '\n' ' ' | sed 's/ $//')"
  check "man pages and completions" ls /usr/share/man/man8/wharfd.8.gz /usr/share/man/man1/wharf.1.gz \
    /usr/share/{bash-completion/completions/,zsh/vendor-completions/_}{wharf,wharfd} \
    /usr/share/fish/vendor_completions.d/{wharf,wharfd}.fish
  check "the sample of the policy" /usr/bin/wharf policy check /usr/share/doc/wharf/examples/policy.toml

  say "Containers"
  useradd --no-create-home --home-dir /nonexistent --shell /bin/sh --groups docker wharf-member
  wharf load -i "$STATE/busybox.tar" >/dev/null
  same "docker run as root" "hello" "$(wharf run --rm busybox echo hello)"
  check "--docker-sock, on an installed service" "$ROOT/deploy/install.sh" --docker-sock "$STATE/wharf.deb"
  same "docker run as a member of the group docker" "hello" "$(member run --rm busybox echo hello)"
  fails "docker run as somebody else" "permission denied" stranger run --rm busybox true
  echo '{"labels": ["site=lab"]}' >/etc/wharf/daemon.json
  check "reload" systemctl reload wharf
  wharf network create lab >/dev/null
  wharf volume create data >/dev/null
  # shellcheck disable=SC2016 # the container's shell expands it
  local program='echo started >>/data/starts; httpd -h /data; while :; do i=$((i + 1)); echo line $i; sleep 0.05; done'
  wharf run -d --name always --restart always --network lab -p 8080:80 -v data:/data busybox sh -c "$program" >/dev/null
  wharf run -d --name unless --restart unless-stopped busybox sleep 1000000 >/dev/null
  wharf run -d --name stopped --restart unless-stopped busybox sleep 1000000 >/dev/null
  wharf stop -t 1 stopped >/dev/null
  wharf run -d --name never busybox sleep 1000000 >/dev/null
  check "published port" wait_for python3 -c '
import urllib.request
urllib.request.urlopen("http://127.0.0.1:8080/starts", timeout=5)'
  same "starts of the container" 1 "$(starts)"
  cat /proc/sys/kernel/random/boot_id >"$STATE/boot"
}

starts() { wc -l </var/lib/wharf/volumes/data/_data/starts; }
starts_twice() { [ "$(starts)" = 2 ]; }
running() { wharf ps --format '{{.Names}}' | sort | tr '\n' ' '; }
# Prints the first gap in the lines of a container's log.
gaps() {
  wharf logs "$1" 2>/dev/null | awk '
    $1 != "line" { print "not a line: " $0; exit }
    $2 != n + 1 && $2 != 1 { print "gap before " $0; exit }
    { n = $2 }'
}

after_boot() {
  say "After the boot"
  check "a container is started at boot, before any client connects" wait_for starts_twice
  check "the engine" wait_for systemctl -q is-active wharf.service
  same "containers with a restart policy run, others don't" "always unless " "$(running)"
  same "the configuration" '[site=lab]' "$(wharf info -f '{{.Labels}}')"
  same "logs" "" "$(gaps always)"
  same "docker run as a member, on /var/run/docker.sock" "hello" "$(member run --rm busybox echo hello)"

  say "Upgrade under running containers"
  newer_package
  local pids client
  pids="$(field always '{{.State.Pid}}') $(field unless '{{.State.Pid}}')"
  : >"$STATE/client"
  while [ ! -e "$STATE/client-stop" ]; do wharf ps -q >/dev/null 2>>"$STATE/client"; sleep 0.2; done &
  client=$!
  check "apt install of the higher version" apt 600 install --no-install-recommends "$STATE/newer.deb"
  touch "$STATE/client-stop"
  wait "$client" || true
  same "the daemon is the new version's" 99 "$(wharf version -f '{{.Server.Version}}' | sed 's/.*wharf\.//')"
  same "no client failed meanwhile" "" "$(cat "$STATE/client")"
  same "the containers' processes are the same" "$pids" "$(field always '{{.State.Pid}}') $(field unless '{{.State.Pid}}')"
  same "every line of the log" "" "$(gaps always)"
  same "the configuration" '{"labels": ["site=lab"]}' "$(cat /etc/wharf/daemon.json)"
  same "docker exec" "hello" "$(wharf exec always echo hello)"
  same "docker run" "hello" "$(member run --rm busybox echo hello)"

  say "Removal"
  fails "is refused while containers run" "Wharf has running containers: 2" "$ROOT/deploy/install.sh" --remove
  same "then nothing has happened" "always unless $pids" \
    "$(running)$(field always '{{.State.Pid}}') $(field unless '{{.State.Pid}}')"
  check "--remove --stop-containers" "$ROOT/deploy/install.sh" --remove --stop-containers
  same "nothing runs or is mounted" "" "$(traces)"
  check "data and configuration are kept" ls /var/lib/wharf/wharf.db /etc/wharf/daemon.json
  check "programs are gone" test ! -e /usr/lib/wharf -a ! -e /usr/sbin/wharfd

  say "Installation on kept data"
  check "install.sh" "$ROOT/deploy/install.sh" "$STATE/wharf.deb"
  same "the containers" "always never stopped unless " "$(wharf ps -a --format '{{.Names}}' | sort | tr '\n' ' ')"
  same "the configuration" '[site=lab]' "$(wharf info -f '{{.Labels}}')"
  wharf start never >/dev/null
  same "a container starts" true "$(field never '{{.State.Running}}')"

  say "Purge, with a second data root that has a file of the administrator's"
  # shellcheck disable=SC2046 # one id a word
  wharf stop -t 1 $(wharf ps -q) >/dev/null
  mkdir /srv/lab
  touch /srv/lab/mine
  echo '{"data-root": "/srv/lab"}' >/etc/wharf/daemon.json
  systemctl restart wharf.service
  wharf load -i "$STATE/busybox.tar" >/dev/null
  wharf run -d --name lab busybox sleep 1000000 >/dev/null
  nft add rule inet wharf-wharf0 wharf-user ip saddr 192.0.2.1 drop
  userdel wharf-member
  fails "is refused while containers run" "Wharf has running containers" "$ROOT/deploy/install.sh" --purge
  check "--purge --stop-containers" "$ROOT/deploy/install.sh" --purge --stop-containers
  same "the output names what is kept" 1 "$(grep -c "/srv/lab is kept" "$STATE/output")"
  same "of the data root" mine "$(ls -A /srv/lab)"
  rm -r /srv/lab
  machine >"$STATE/after"
  same "the machine is as before" "" "$(diff "$STATE/before" "$STATE/after" | head -n 40)"
}

# Loads this kernel again and boots it, without kexec-tools (kexec_file_load(2); systemd runs a loaded kernel).
boot() {
  python3 - <<'PY'
import ctypes, os
command = open("/proc/cmdline").read().strip().encode() + b"\0"
kernel = os.open(f"/boot/vmlinuz-{os.uname().release}", os.O_RDONLY)
no_initrd = 4
if ctypes.CDLL(None, use_errno=True).syscall(320, kernel, -1, len(command), command, no_initrd):
    raise OSError(ctypes.get_errno(), "kexec_file_load")
PY
  sync
  systemctl kexec
  sleep 600
}

if [ ! -e "$STATE/boot" ]; then
  before_boot
  [ "$FAILED" = 0 ] || die "see above"
  if [ "$KEXEC" = yes ]; then boot; fi
  say "Reboot the machine now, then run this again"
elif [ "$(cat "$STATE/boot")" = "$(cat /proc/sys/kernel/random/boot_id)" ]; then
  die "the machine has not been rebooted"
else
  after_boot
  [ "$FAILED" = 0 ] || die "see above"
  rm -rf "$STATE"
  say "All as it should be"
fi
