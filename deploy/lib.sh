# Functions of the scripts in this folder, which source this file. Sourcing it changes nothing.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
  [ "$(id -u)" = 0 ] || die "this needs root: sudo $0 $*"
}

# Sets what the caller's environment may lack (env -i; sudo -E; su without a dash): a PATH with the system's tools, a
# home, and for pip the certificates that this host trusts instead of those of pip's own package.
system_environment() {
  export PATH="${PATH:-/usr/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  export HOME="${HOME:-/root}"
  local bundle=/etc/ssl/certs/ca-certificates.crt
  if [ -z "${PIP_CERT:-}" ] && [ -s "$bundle" ]; then export PIP_CERT=$bundle; fi
}

# --- packages -------------------------------------------------------------------------------------------------

# While a script installs packages, this policy refuses to start services: an installed Docker is not (re)started.
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="# laid by Wharf's scripts while they install packages; may be removed"

services_hold() {
  if [ -e "$POLICY" ] && grep -qF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi # left by a killed run
  [ -e "$POLICY" ] && mv "$POLICY" "$POLICY.wharf-kept"
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
  chmod 755 "$POLICY"
}

services_release() {
  if [ -e "$POLICY" ] && grep -qF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
  if [ -e "$POLICY.wharf-kept" ] && [ ! -e "$POLICY" ]; then mv "$POLICY.wharf-kept" "$POLICY"; fi
  return 0
}

apt() {
  DEBIAN_FRONTEND=noninteractive timeout -k 10 "$1" apt-get -q -y -o DPkg::Lock::Timeout=180 \
    -o Dpkg::Options::=--force-confold ${DPKG_FAST:+-o Dpkg::Options::=--force-unsafe-io} -o Dpkg::Use-Pty=0 \
    -o APT::Sandbox::User=root "${@:2}" </dev/null
}

# install_missing WANT...: each WANT is `package`, `package?command` or `package?/path`. If the command or path exists,
# from any vendor, the package is not installed: Debian's docker-cli would replace docker-ce-cli.
# Sets INSTALLED to the installed packages.
INSTALLED=()
install_missing() {
  local want package there missing=()
  INSTALLED=()
  for want in "$@"; do
    package=${want%%\?*}
    there=${want#"$package"}
    there=${there#\?}
    case $there in
      "") dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed && continue ;;
      /*) [ -e "$there" ] && continue ;;
      *) command -v "$there" >/dev/null && continue ;;
    esac
    missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (apt-get, which could install them, is missing too)"
  note "installing ${missing[*]}"
  services_hold
  local status=0
  {
    apt 900 install --no-install-recommends "${missing[@]}" ||
      { apt 300 update && dpkg --configure -a && apt 900 install --no-install-recommends "${missing[@]}"; }
  } >"$APT_LOG" 2>&1 || status=$?
  services_release
  if [ "$status" != 0 ]; then
    tail -n 25 "$APT_LOG" >&2
    die "apt-get could not install: ${missing[*]} (whole log: $APT_LOG)"
  fi
  INSTALLED=("${missing[@]}")
}

# unpack_packages DIR PACKAGE...: unpacks the packages' files below DIR, without installing them and their dependencies.
# If they can't be downloaded, the tests that read them are skipped.
unpack_packages() {
  local dir=$1 archive down
  shift
  [ "$(cat "$dir/.packages" 2>/dev/null)" != "$*" ] || return 0
  note "unpacking $*"
  rm -rf "$dir"
  mkdir -p "$dir"
  down=$(mktemp -d)
  if (cd "$down" && { apt 300 download "$@" || { apt 300 update && apt 300 download "$@"; }; }) >"$APT_LOG" 2>&1; then
    for archive in "$down"/*.deb; do dpkg-deb -x "$archive" "$dir"; done
    echo "$*" >"$dir/.packages"
  else
    note "they could not be downloaded: $(tail -n 1 "$APT_LOG")"
  fi
  rm -rf "$down"
}

# Disables the services that the packages just installed have enabled for the next boot.
services_disable_new() {
  local package unit
  command -v systemctl >/dev/null || return 0
  for package in "${INSTALLED[@]}"; do
    for unit in $(dpkg -L "$package" 2>/dev/null | sed -n 's#^\(/usr\)\?/lib/systemd/system/\([^/@]*\.\(service\|socket\)\)$#\2#p'); do
      systemctl disable "$unit" >/dev/null 2>&1 || true
    done
  done
}

# --- Python ---------------------------------------------------------------------------------------------------

python_good() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the interpreter to use: $WHARF_PYTHON, else python3 of the PATH, else Debian's.
find_python() {
  local candidate
  for candidate in ${WHARF_PYTHON:+"$WHARF_PYTHON"} python3 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null && python_good "$candidate"; then
      # The real binary: the wrapper of a version manager (pyenv, asdf) may not work for other users or in a service.
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return 0
    fi
  done
  return 1
}

choose_python() {
  PYTHON=$(find_python) || {
    install_missing "python3?/usr/bin/python3" python3-venv
    PYTHON=$(find_python) || die "no Python of 3.11 or newer with the venv module (set WHARF_PYTHON=/path/to/python3)"
  }
}

# make_venv DIR EXTRAS: a virtual environment with the dependencies at the versions of constraints.txt. It is made again
# when the interpreter, pyproject.toml or constraints.txt has changed. The stamp is written last, so a killed run has none.
make_venv() {
  local dir=$1 extras=$2 stamp
  stamp=$({ "$PYTHON" -VV; echo "$PYTHON $extras"; cat "$ROOT/pyproject.toml" "$ROOT/deploy/constraints.txt"; } | sha256sum | cut -c1-32)
  if [ "$(cat "$dir/.wharf-stamp" 2>/dev/null)" = "$stamp" ] && "$dir/bin/python" -c '' 2>/dev/null; then return 0; fi
  note "creating a virtual environment with $("$PYTHON" -V) in $dir"
  rm -rf "$dir"
  mkdir -p "$(dirname "$dir")"
  timeout -k 10 120 "$PYTHON" -m venv "$dir"
  local requirements
  requirements=$("$dir/bin/python" - "$ROOT/pyproject.toml" "$extras" <<'PY'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
wanted = list(project["project"]["dependencies"]) + list(project["build-system"]["requires"])
for extra in sys.argv[2].split():
    wanted += project["project"]["optional-dependencies"][extra]
print("\n".join(wanted))
PY
  )
  local try
  for try in 1 2; do
    # shellcheck disable=SC2086 # one requirement a line
    if (IFS=$'\n'; timeout -k 10 900 "$dir/bin/python" -m pip install -q --disable-pip-version-check \
      -c "$ROOT/deploy/constraints.txt" $requirements </dev/null); then
      echo "$stamp" >"$dir/.wharf-stamp"
      return 0
    fi
    note "pip failed (try $try of 2)"
  done
  die "the Python packages could not be installed"
}

# install_sources VENV: installs this folder's sources into a virtual environment of make_venv.
install_sources() {
  local copy status=0
  # From a copy: a build writes files into its folder.
  copy=$(mktemp -d)
  cp -r "$ROOT"/{pyproject.toml,README.md,LICENSE,NOTICE,server,engine,api_models} "$copy"
  timeout -k 10 600 "$1/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
    --force-reinstall "$copy" </dev/null >&2 || status=$?
  rm -rf "$copy"
  [ "$status" = 0 ] || die "Wharf itself could not be installed"
}

# --- the host's cgroups ---------------------------------------------------------------------------------------

# cgroups_complete FILE: mounts unused controllers and unmounted hierarchies as v1, as Debian's cgroupfs-mount does: crun
# refuses a hybrid layout in which the unified hierarchy has controllers, and containerd can't read a cgroup while a v1
# hierarchy isn't mounted. Writes the mount points to FILE, for cgroups_restore.
cgroups_complete() {
  local notes=$1 unified=/sys/fs/cgroup/unified controller controllers
  [ "$(stat -f -c %T /sys/fs/cgroup 2>/dev/null)" = tmpfs ] || return 0
  [ -e "$unified/cgroup.controllers" ] || return 0
  controllers=$(cgroups_unmounted)
  # A controller that cgroups of the unified hierarchy use can't be moved.
  [ -n "$(cat "$unified/cgroup.subtree_control")" ] || controllers+=" $(cat "$unified/cgroup.controllers")"
  for controller in $controllers; do
    local dir=/sys/fs/cgroup/$controller made=no
    [ -d "$dir" ] || { mkdir "$dir" 2>/dev/null && made=yes; } || continue
    if mount -t cgroup -o "$controller" cgroup "$dir" 2>/dev/null; then
      note "mounted the cgroup controller $controller at $dir (crun and containerd need it; undone at the end)"
      echo "$dir" >>"$notes"
    elif [ "$made" = yes ]; then
      rmdir "$dir"
    fi
  done
}

# Prints the controllers of v1 hierarchies that exist without a mount: they were unmounted while cgroups were left.
cgroups_unmounted() {
  local controllers
  sed -n 's/^[1-9][0-9]*:\([a-z_,]*\):.*/\1/p' /proc/self/cgroup | while read -r controllers; do
    awk -v wanted="$controllers" '$3 == "cgroup" && index("," $4 ",", "," wanted ",") { found = 1 } END { exit !found }' \
      /proc/mounts || echo "$controllers"
  done
}

# cgroups_restore FILE: unmounts what cgroups_complete has mounted. Removes the cgroups below first: with them, the
# hierarchy would exist longer than its mount.
cgroups_restore() {
  local notes=$1 dir
  [ -e "$notes" ] || return 0
  while read -r dir; do
    mountpoint -q "$dir" || continue
    find "$dir" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
    # The kernel counts a removed cgroup until it has freed it.
    for _ in $(seq 50); do
      [ "$(sed -n "s/^${dir##*/}\t[0-9]*\t\([0-9]*\)\t.*/\1/p" /proc/cgroups)" != 1 ] || break
      sleep 0.1
    done
    umount "$dir" 2>/dev/null || continue
    rmdir "$dir" 2>/dev/null || true
  done <"$notes"
  rm -f "$notes"
}

# --- the network of the host ----------------------------------------------------------------------------------

# Prints the settings that an engine switches on and leaves on.
forwarding() {
  cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null | tr '\n' ' '
}

forwarding_restore() {
  local v4 v6
  read -r v4 v6 <<<"$1"
  [ -z "$v4" ] || echo "$v4" >/proc/sys/net/ipv4/ip_forward 2>/dev/null || true
  [ -z "$v6" ] || echo "$v6" >/proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null || true
}

# Prints the links that the tests' engines create. A container's link has its engine's bridge as its alias, which
# distinguishes it from those of other engines.
own_links() {
  ip -o link 2>/dev/null | sed -n -e 's/^[0-9]*: \(\(wt\|wharf\)[^:@]*\).*/\1/p' \
    -e 's/^[0-9]*: \(veth[^:@]*\).*alias wharf:wt.*/\1/p' | sort
}

# links_gone BEFORE: whether no link was added to those of BEFORE. The kernel may take a minute to remove one.
links_gone() {
  local left
  for _ in $(seq 60); do
    left=$(comm -13 <(printf '%s\n' "$1") <(own_links))
    [ -n "$left" ] || return 0
    sleep 1
  done
  printf 'links left behind: %s\n' "$left" >&2
  return 1
}
