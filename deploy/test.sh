#!/usr/bin/env bash
# sudo ./deploy/test.sh [pytest arguments]
#
# Installs what the tests need, checks style and types, runs every test, and leaves nothing behind. A Docker that is
# installed or running is neither started nor touched. Ends within 10 minutes on an idle machine with two processors;
# the bounds of its steps are for a busy one.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
cd "$ROOT"
# shellcheck source=deploy/lib.sh
. "$ROOT/deploy/lib.sh"
need_root
system_environment

CACHE=${WHARF_TEST_CACHE:-/var/cache/wharf}
WORK=$(mktemp -d /tmp/wharf-run-XXXXXX)
APT_LOG=$WORK/apt.log
umask 022
mkdir -p "$CACHE"

tidy() {
  trap - EXIT INT TERM
  services_release
  [ -x "${VENV:-}/bin/python" ] && "$VENV/bin/python" -m compat_tests.engines sweep >/dev/null 2>&1
  cgroups_restore "$CACHE/cgroups-mounted"
  rm -rf "$WORK"
}
trap tidy EXIT
trap 'tidy; exit 130' INT TERM

DPKG_FAST=yes # no power cut is feared in the middle of a test run
say "Packages of the OS"
install_missing \
  "docker-cli?docker" "docker.io?dockerd" "docker-buildx?/usr/libexec/docker/cli-plugins/docker-buildx" \
  "docker-compose?/usr/libexec/docker/cli-plugins/docker-compose" "containerd?ctr" "runc?runc" "crun?crun" \
  "docker-registry?docker-registry" "skopeo?skopeo" "tini?tini" "nftables?nft" "busybox-static" "iproute2?ip" \
  "iptables?iptables" "openssl?openssl" "tmux?tmux" "git?git" "procps?ps" "xz-utils?xz" "bzip2?bzip2" "zstd?zstd" \
  "util-linux?nsenter" "openssh-client?ssh-agent" "ca-certificates"
services_disable_new
# the protos and the API's description that ours are compared with
unpack_packages "$CACHE/references" golang-github-containerd-containerd-dev golang-github-containerd-cgroups-dev \
  golang-github-gogo-googleapis-dev golang-github-gogo-protobuf-dev golang-github-docker-docker-dev
export WHARF_REFERENCES=$CACHE/references/usr/share/gocode/src

say "Python"
choose_python
VENV=$CACHE/tests-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
make_venv "$VENV" "test dev"
python=$VENV/bin/python
note "$("$python" -V) in $VENV"

# The sources are used as they stand; what Python compiles of them stays out of the tree.
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONSTARTUP
export PYTHONPATH=$ROOT PYTHONPYCACHEPREFIX=$CACHE/pycache PYTHONUNBUFFERED=1 PATH="$VENV/bin:$PATH"
unset "${!DOCKER_@}" "${!BUILDX_@}" "${!COMPOSE_@}"

say "What killed runs left"
"$python" -m compat_tests.engines sweep
cgroups_restore "$CACHE/cgroups-mounted"
cgroups_complete "$CACHE/cgroups-mounted"

failed=()
say "Style (ruff)"
timeout -k 5 60 ruff check --cache-dir "$CACHE/ruff" . || failed+=(ruff)
say "Types (mypy --strict)"
timeout -k 5 300 mypy --strict --cache-dir "$CACHE/mypy" || failed+=(mypy)
[ ${#failed[@]} = 0 ] || printf 'FAILED, whatever the tests say: %s\n' "${failed[@]}"

# tests SECONDS ARGUMENTS...: one pytest process under a hard bound. An interrupt lets the fixtures clean up; the bound
# reports as 124.
tests() {
  timeout -s INT -k 30 "$1" "$python" -m pytest -p no:randomly -o cache_dir="$WORK/pytest" --timeout=120 --durations=15 "${@:2}" </dev/null
}

say "Tests"
status=0
tests 1500 "$@" || status=$?
case $status in
  0) ;;
  1)
    # A test that failed gets one more chance, alone in a fresh process: what fails twice is broken. What passes then is
    # named, so that it is looked at, but does not fail the run.
    mapfile -t first < <("$python" -c '
import json, sys
print("\n".join(json.load(open(sys.argv[1]))))' "$WORK/pytest/v/cache/lastfailed")
    "$python" -m compat_tests.engines sweep
    say "Once more, alone: ${#first[@]} that failed"
    status=0
    again=0
    tests 400 --last-failed --last-failed-no-failures none "$@" >"$WORK/again.txt" 2>&1 || again=$?
    if [ "$again" = 0 ]; then
      for name in "${first[@]}"; do printf 'unstable: failed once, passed alone: %s\n' "$name"; done
    else
      status=$again
    fi
    cat "$WORK/again.txt"
    ;;
  *) printf 'pytest ended with %s, which no test explains\n' "$status" >&2 ;;
esac
if [ ${#failed[@]} -gt 0 ] && [ "$status" = 0 ]; then status=1; fi
tidy
exit "$status"
