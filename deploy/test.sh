#!/usr/bin/env bash
# sudo ./deploy/test.sh [pytest arguments]
#
# Installs what the tests need, checks style and types, runs every test, and leaves nothing behind. A Docker that is
# installed or running is neither started nor touched. Ends within 15 minutes on an idle machine with two processors;
# the bounds of its steps are for a busy one.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
cd "$ROOT"
# shellcheck source=deploy/lib.sh
. "$ROOT/deploy/lib.sh"
need_root "$@"
system_environment

CACHE=${WHARF_TEST_CACHE:-/var/cache/wharf}
WORK=$(mktemp -d /tmp/wharf-run-XXXXXX)
APT_LOG=$WORK/apt.log
umask 022
mkdir -p "$CACHE"
FORWARDING=$(forwarding)

tidy() {
  trap - EXIT INT TERM
  forwarding_restore "$FORWARDING"
  services_release
  [ -x "${VENV:-}/bin/python" ] && "$VENV/bin/python" -m compat_tests.support.engines sweep >/dev/null 2>&1
  cgroups_restore "$CACHE/cgroups-mounted"
  rm -rf --one-file-system "$WORK"
}
trap tidy EXIT
# The tests that run clean up after themselves first.
# shellcheck disable=SC2317 # the trap calls it
interrupted() {
  trap - EXIT INT TERM
  pkill -INT -f "^timeout .*cache_dir=$WORK/" || :
  wait
  tidy
  exit 130
}
trap interrupted INT TERM

DPKG_FAST=yes # no power cut is feared in the middle of a test run
say "Packages of the OS"
install_missing \
  "docker-cli?docker" "docker.io?dockerd" "docker-buildx?/usr/libexec/docker/cli-plugins/docker-buildx" \
  "docker-compose?/usr/libexec/docker/cli-plugins/docker-compose" "containerd?ctr" "runc?runc" "crun?crun" \
  "docker-registry?docker-registry" "etcd-server?etcd" "etcd-client?etcdctl" "skopeo?skopeo" "tini?tini" "nftables?nft" "busybox-static" "iproute2?ip" \
  "iptables?iptables" "openssl?openssl" "tmux?tmux" "git?git" "procps?ps" "xz-utils?xz" "bzip2?bzip2" "zstd?zstd" \
  "util-linux?nsenter" "openssh-client?ssh-agent" "xfsprogs?mkfs.xfs" "fuse3?fusermount3" "bindfs?bindfs" "e2fsprogs?mkfs.ext4" "ca-certificates" "nodejs?node" "npm?npm" "kind?kind" "chromium?chromium"
services_disable_new
# the protos and the API's description that ours are compared with
unpack_packages "$CACHE/references" golang-github-containerd-containerd-dev golang-github-containerd-cgroups-dev \
  golang-github-gogo-googleapis-dev golang-github-gogo-protobuf-dev golang-github-docker-docker-dev
# A foreign client; not installed, because its package starts a service.
unpack_packages "$CACHE/prometheus" prometheus
export WHARF_REFERENCES=$CACHE/references/usr/share/gocode/src

say "Python"
choose_python
VENV=$CACHE/tests-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
make_venv "$VENV" "test dev otlp pam"
python=$VENV/bin/python
note "$("$python" -V) in $VENV"

# The sources are used as they stand; what Python compiles of them stays out of the tree.
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONSTARTUP
export PYTHONPATH=$ROOT PYTHONPYCACHEPREFIX=$CACHE/pycache PYTHONUNBUFFERED=1 PATH="$VENV/bin:$PATH"
unset "${!DOCKER_@}" "${!BUILDX_@}" "${!COMPOSE_@}"

say "Clients of Node.js"
"$python" -m compat_tests.support.npm >"$WORK/npm.log" 2>&1 || { tail -n 25 "$WORK/npm.log" >&2; die "npm could not install them"; }

say "What killed runs left"
"$python" -m compat_tests.support.engines sweep
cgroups_restore "$CACHE/cgroups-mounted"
cgroups_complete "$CACHE/cgroups-mounted"

failed=()
say "Style (ruff)"
timeout -k 5 60 ruff check --cache-dir "$CACHE/ruff" . || failed+=(ruff)
say "Types (mypy --strict)"
timeout -k 5 300 mypy --strict --cache-dir "$CACHE/mypy" || failed+=(mypy)
say "Layers (import-linter)"
timeout -k 5 120 lint-imports --no-cache || failed+=(import-linter)
say "Collection (each test file is in a share)"
ROOMS=(api_models engine server)
every_file_collected() {
  local collected
  collected=$(timeout -k 5 120 "$python" -m pytest -p no:cacheprovider --collect-only -q "${ROOMS[@]}" compat_tests \
    --engine wharf </dev/null | sed -n 's/::.*//p' | sort -u) || :
  diff --label "git ls-files" --label "collected by pytest" -U 0 \
    <(git -c safe.directory="$ROOT" ls-files --cached --others --exclude-standard '*test_*.py' | sort) - <<<"$collected"
}
every_file_collected || failed+=(collection)
[ ${#failed[@]} = 0 ] || printf 'FAILED, whatever the tests say: %s\n' "${failed[@]}"

# tests NAME SECONDS ARGUMENTS...: one pytest process under a hard bound, its report in a file. An interrupt lets the
# fixtures clean up; the bound reports as 124.
tests() {
  local name=$1 seconds=$2 status=0
  # A folder for temporary files of its own: pytest's common one has what killed runs left, mounts included.
  timeout -s INT -k 30 "$seconds" "$python" -m pytest -p no:randomly -o cache_dir="$WORK/$name" --timeout=300 \
    --basetemp="$WORK/t-${name:0:3}" --durations=15 "${@:3}" </dev/null >"$WORK/$name.txt" 2>&1 || status=$?
  echo "$status" >"$WORK/$name.status"
}

# A minute of the tests of clients as one user with a role; compat_tests/README.md has the result of all of them.
USER_MODULES=(
  compat_tests/clients/containers/test_run.py compat_tests/clients/containers/exec/test_exec.py
  compat_tests/clients/networks/test_networks.py compat_tests/clients/builder/classic/test_build.py
  compat_tests/clients/images/registries/test_pull.py
  compat_tests/clients/test_docker_py.py compat_tests/clients/test_volumes.py
)

SWARM=compat_tests/clients/swarm

say "Tests"
links_before=$(own_links)
if [ $# -gt 0 ]; then
  shares=(chosen)
  tests chosen 1500 "$@"
else
  # Most tests wait for something: these three lines run side by side, each with engines of its own.
  shares=(rooms swarm containerd faults user clients)
  {
    tests rooms 1200 "${ROOMS[@]}"
    tests swarm 900 "$SWARM" --engine wharf
  } &
  {
    tests containerd 900 compat_tests -m core --engine containerd
    tests faults 1000 compat_tests --ignore=compat_tests/clients --engine wharf
    tests user 300 "${USER_MODULES[@]}" --engine wharf-user
  } &
  tests clients 1200 compat_tests/clients --ignore="$SWARM" --engine wharf &
  wait
fi
status=0
first=()
for name in "${shares[@]}"; do
  cat "$WORK/$name.txt"
  case $(cat "$WORK/$name.status") in
    0) ;;
    1)
      mapfile -O ${#first[@]} -t first < <("$python" -c '
import json, sys
print("\n".join(json.load(open(sys.argv[1]))))' "$WORK/$name/v/cache/lastfailed")
      ;;
    *)
      printf 'pytest (%s) ended with %s, which no test explains\n' "$name" "$(cat "$WORK/$name.status")" >&2
      status=1
      ;;
  esac
done
if [ ${#first[@]} -gt 0 ]; then
  # A test that failed gets one more chance, with no others beside it: what fails twice is broken. What passes then is
  # named, so that it is looked at, but does not fail the run.
  "$python" -m compat_tests.support.engines sweep
  say "Once more, alone: ${#first[@]} that failed"
  users=() others=()
  for name in "${first[@]}"; do
    case $name in
      *wharf-user*) users+=("$name") ;;
      # Each test of such a module needs those before it.
      "$SWARM"/hosts/*) others+=("${name%%::*}") ;;
      *) others+=("$name") ;;
    esac
  done
  [ ${#others[@]} = 0 ] || tests again 400 "${others[@]}"
  [ ${#users[@]} = 0 ] || tests again-user 200 "${users[@]}" --engine wharf-user
  cat "$WORK"/again*.txt
  if cat "$WORK"/again*.status | grep -qvx 0; then
    status=1
  else
    for name in "${first[@]}"; do printf 'unstable: failed once, passed alone: %s\n' "$name"; done
  fi
fi
if ! links_gone "$links_before"; then status=1; fi
if [ ${#failed[@]} -gt 0 ] && [ "$status" = 0 ]; then status=1; fi
tidy
exit "$status"
