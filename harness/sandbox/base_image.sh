#!/usr/bin/env bash
# Makes a Debian base image without any image registry: debootstrap from the Debian mirror that this machine itself uses,
# then `docker import`. About 40 seconds. Needs root (debootstrap makes device files and enters the new tree).
#
#   base_image.sh [TAG [SUITE]]      TAG: troop-base:bookworm     SUITE: bookworm | bullseye | … (else what TAG says)
#   base_image.sh troop-base:python3.9   a base for environment images: the suite whose Python that is (3.7, 3.9, 3.11, 3.13),
#                                    with compilers, headers and git, and nothing of this machine's apt settings in it
#   base_image.sh --mirror           only prints the mirror that it would use
#   TROOP_MIRROR=URL                 another mirror than the one in this machine's apt sources
#   docker build --network host --build-arg BASE=troop-base:bookworm -t troop-sandbox - < Dockerfile
set -euo pipefail

tag=${1:-troop-base:bookworm}
suite=${2:-${tag##*:}}
packages=
case $suite in
  python3.7) suite=buster ;;
  python3.9) suite=bullseye ;;
  python3.11) suite=bookworm ;;
  python3.13) suite=trixie ;;
esac
case $tag in
  *:python*) packages=ca-certificates,python3,python3-dev,python3-venv,python3-pip,gcc,g++,make,git,locales,patch,procps,tzdata,wget ;;
esac

fail() {
  echo "base_image.sh: $*" >&2
  exit 1
}

# Addresses of Debian's own archive in this machine's apt sources, of whichever format: apt itself reads them, and the Release
# file that it fetched says who publishes an archive (third-party sources carry suites of the same names).
debian_mirrors() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' |
    grep '^http' || true
}

find_mirror() {
  local found
  found=$(debian_mirrors)
  if [ -z "$found" ]; then # no Release file was fetched yet
    apt-get update -qq >&2 || true
    found=$(debian_mirrors)
  fi
  printf '%s\n' "${found%%$'\n'*}"
}

mirror=${TROOP_MIRROR:-$(find_mirror)}
[ -n "$mirror" ] || fail "no Debian archive in this machine's apt sources: set TROOP_MIRROR=URL of a Debian mirror"
if [ "$tag" = --mirror ]; then
  echo "$mirror"
  exit 0
fi

[ "$(id -u)" = 0 ] || fail "needs root for debootstrap: type  sudo $0 $tag $suite"
command -v debootstrap >/dev/null || fail "debootstrap is missing: type  apt-get install -y debootstrap"
command -v docker >/dev/null || fail "the docker command is missing: type  apt-get install -y docker.io"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || fail "no Docker daemon answers: start dockerd, or set DOCKER_HOST"
[ -e "/usr/share/debootstrap/scripts/$suite" ] || fail "debootstrap knows no suite '$suite': give one such as bookworm or bullseye, or a Python that Debian had, such as troop-base:python3.9"

tree=$(mktemp -d "${TMPDIR:-/tmp}/troop-base.XXXXXX")
trap 'rm -rf --one-file-system "$tree"' EXIT

# What apt was told about proxies here holds for debootstrap's downloads too; it does not enter the image.
proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy 2>/dev/null | head -n 1 || true)
[ -z "$proxy" ] || export http_proxy=${http_proxy:-$proxy}

include=()
case $mirror in https:*) packages=${packages:-ca-certificates} ;; esac
[ -z "$packages" ] || include=("--include=$packages")
echo "base_image.sh: $suite into $tag, from the Debian mirror of this machine's apt sources"
if ! debootstrap --variant=minbase "${include[@]}" "$suite" "$tree/root" "$mirror" >"$tree/log" 2>&1; then
  tail -n 20 "$tree/log" >&2
  tail -n 20 "$tree/root/debootstrap/debootstrap.log" >&2 2>/dev/null || true
  fail "debootstrap of $suite failed (above: the end of its log)"
fi

# Images need no package lists, archives or documentation; dpkg is told to leave documentation out from here on, too.
cat >"$tree/root/etc/dpkg/dpkg.cfg.d/troop-slim" <<'SLIM'
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/doc/*/copyright
SLIM
case $tag in
  *:python*) : >"$tree/root/etc/apt/sources.list" ;; # whoever installs more brings the sources along, and takes them away again
  *) echo "deb $mirror $suite main" >"$tree/root/etc/apt/sources.list" ;;
esac
find "$tree/root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$tree/root/var/cache/apt/archives" "$tree/root/var/lib/apt/lists" "$tree/root/usr/share/man" "$tree/root/usr/share/locale"
mkdir -p "$tree/root/var/cache/apt/archives/partial" "$tree/root/var/lib/apt/lists/partial"
rm -f "$tree/root/etc/resolv.conf" "$tree/root/etc/hostname"
case $tag,$mirror in
  *:python*,*) ;;
  *,https:*) # an https mirror behind a private authority can only be reached with that authority's (public) certificate
    cp /usr/local/share/ca-certificates/*.crt "$tree/root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$tree/root" update-ca-certificates >/dev/null 2>&1
    ;;
esac

tar -C "$tree/root" --numeric-owner --one-file-system -c . |
  docker import --change 'CMD ["bash"]' --change 'LABEL troop.base=debootstrap' - "$tag" >/dev/null
echo "base_image.sh: $tag is there"
