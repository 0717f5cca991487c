#!/bin/bash
# newer.sh COMMAND…: runs a command where the docker CLI, dockerd, buildx, compose and containerd are those of Debian
# unstable, e.g. `compat_tests/newer.sh python -m pytest compat_tests`. They are fetched once and unpacked into a folder
# of their own; the command finds them in the places of the installed ones, in a mount namespace of its own. Needs root.
set -euo pipefail
HOME_DIR=${WHARF_NEWER:-/var/cache/wharf/newer}
PROGRAMS=(usr/bin/{docker,containerd,containerd-shim-runc-v2,ctr} usr/sbin/{dockerd,docker-proxy}
  usr/libexec/docker/cli-plugins/docker-{buildx,compose})

fetch() {
  local work
  work=$(mktemp -d)
  trap "rm -rf '$work'" EXIT
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Component: main' 'Label: Debian' | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.pgp] ${mirror:?apt knows no mirror} sid main" >"$work/list"
  local options=(-q -o "Dir::Etc::SourceList=$work/list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o Dir::Etc::PreferencesParts=/dev/null -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$work" && apt-get "${options[@]}" download docker.io docker-cli docker-buildx docker-compose containerd)
  for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
  mkdir -p "$(dirname "$HOME_DIR")"
  rm -rf "$HOME_DIR"
  mv "$work/root" "$HOME_DIR"
}

[ $# -gt 0 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
[ -x "$HOME_DIR/usr/sbin/dockerd" ] || fetch >&2
for program in "${PROGRAMS[@]}"; do
  [ -e "/$program" ] || { echo "/$program is not installed: there is no place to show the newer one in" >&2; exit 1; }
done
export HOME_DIR
exec unshare --mount --propagation slave bash -c '
  count=$1; shift
  for program in "${@:1:count}"; do mount --bind "$HOME_DIR/$program" "/$program"; done
  exec "${@:count+1}"' -- "${#PROGRAMS[@]}" "${PROGRAMS[@]}" "$@"
