#!/usr/bin/env bash
# ./deploy/package.sh [--version VERSION] [DIRECTORY]
#
# Builds the Debian package wharf_VERSION_ARCHITECTURE.deb in DIRECTORY (default: the current one), and prints its path.
# It has the Python packages of deploy/constraints.txt for this machine's /usr/bin/python3, and is for machines with the
# same Debian release. Needs root only to install python3-venv if that is missing.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$ROOT/deploy/lib.sh"
system_environment

VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT/pyproject.toml")
if [ "${1-}" = --version ]; then
  VERSION=${2-}
  shift 2
fi
[ $# -le 1 ] || die "usage: $0 [--version VERSION] [DIRECTORY]"
dpkg --validate-version "$VERSION" || die "$VERSION is no version of a Debian package"
OUTPUT=$(cd "${1:-.}" && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
# The functions of lib.sh write there what apt-get prints.
export APT_LOG=$WORK/apt.log
# pip's bytecode would have the paths of this build.
export PIP_COMPILE=0
umask 022

TREE=$WORK/tree
VENV=$TREE/usr/lib/wharf

# Chooses Debian's interpreter: the package depends on its package.
debian_python() {
  if ! python_good /usr/bin/python3; then
    [ "$(id -u)" = 0 ] || die "missing: python3-venv (apt-get install python3-venv)"
    install_missing python3 python3-venv
  fi
  PYTHON=$(readlink -f /usr/bin/python3)
  python_good "$PYTHON" || die "/usr/bin/python3 is no Python of 3.11 or newer"
  PYTHON_PACKAGE=$(basename "$PYTHON")
}

# Makes the virtual environment of lib.sh fit for its place in the package: without pip, and with its final path.
build_venv() {
  make_venv "$VENV" "nvidia"
  install_sources "$VENV"
  "$VENV/bin/python" -m pip uninstall -q -y --disable-pip-version-check --root-user-action=ignore setuptools pip
  local script
  for script in "$VENV"/bin/*; do
    case $(basename "$script") in
      python | "$PYTHON_PACKAGE") ;;
      wharf*) sed -i "1s#^\#!.*#\#!/usr/lib/wharf/bin/python#" "$script" ;;
      *) rm "$script" ;; # the programs of the dependencies
    esac
  done
  sed -i '/^command = /d' "$VENV/pyvenv.cfg"
  rm -rf "${VENV:?}"/{.wharf-stamp,.gitignore,include,lib64}
  find "$VENV/lib" -name direct_url.json -delete
  find "$VENV/lib" -type f -exec chmod 644 {} +
}

lay_out() {
  local doc=$TREE/usr/share/doc/wharf
  install -d "$TREE"/usr/{sbin,bin} "$doc/examples"
  (cd / && "$VENV/bin/python" -m server.manual "$TREE/usr/share")
  ln -s ../lib/wharf/bin/wharfd "$TREE/usr/sbin/wharfd"
  ln -s ../lib/wharf/bin/wharf "$TREE/usr/bin/wharf"
  install -m 644 "$ROOT"/deploy/engine.sh "$ROOT"/deploy/engine_client.py "$VENV"
  install -D -m 644 -t "$TREE/usr/lib/systemd/system" "$ROOT"/deploy/systemd/*.{service,socket}
  install -D -m 644 "$ROOT/deploy/systemd/wharf.sysusers" "$TREE/usr/lib/sysusers.d/wharf.conf"
  install -d "$TREE/etc/wharf"
  echo '{}' >"$TREE/etc/wharf/daemon.json"
  install -m 644 "$ROOT/README.md" "$ROOT/NOTICE" "$doc"
  install -m 644 "$ROOT/deploy/README.md" "$doc/administrators.md"
  install -m 644 "$ROOT/deploy/daemon.json" "$ROOT/deploy/policy.toml" "$doc/examples"
  install -m 644 "$ROOT/deploy/debian/copyright" "$doc"
  install -D -m 644 "$ROOT/deploy/debian/lintian-overrides" "$TREE/usr/share/lintian/overrides/wharf"
  gzip -9nc "$ROOT/CHANGELOG.md" >"$doc/changelog.gz"
}

# The bytecode is of the package, so that nothing has to be compiled, and later found and removed, on the machine. Python
# compares the times of the files, which dpkg keeps.
compile() {
  find "$TREE" -name __pycache__ -prune -exec rm -rf {} +
  find "$TREE" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  "$PYTHON" -m compileall -q -j 0 -s "$TREE" -p / "$VENV/lib" "$VENV/engine_client.py"
  # Not before the last use of the environment in this place.
  ln -sf "../../../bin/$PYTHON_PACKAGE" "$VENV/bin/$PYTHON_PACKAGE"
}

control() {
  install -d "$TREE/DEBIAN"
  install -m 755 "$ROOT"/deploy/debian/{preinst,postinst,prerm,postrm} "$TREE/DEBIAN"
  install -m 644 "$ROOT/deploy/debian/conffiles" "$TREE/DEBIAN"
  sed -e "s/@VERSION@/$VERSION/" -e "s/@ARCHITECTURE@/$ARCHITECTURE/" -e "s/@PYTHON@/$PYTHON_PACKAGE/" \
    -e "s/@SIZE@/$(du -sk --exclude DEBIAN "$TREE" | cut -f 1)/" "$ROOT/deploy/debian/control" >"$TREE/DEBIAN/control"
  (cd "$TREE" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
}

# On stdout is the path alone.
debian_python >&2
ARCHITECTURE=$(dpkg --print-architecture)
DEB=$OUTPUT/wharf_${VERSION#*:}_$ARCHITECTURE.deb
# The time of the last commit, so that the same sources give the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -c safe.directory="$ROOT" -C "$ROOT" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
{
  build_venv
  lay_out
  compile
  control
} >&2
dpkg-deb --root-owner-group -Zgzip --build "$TREE" "$DEB" >/dev/null
echo "$DEB"
