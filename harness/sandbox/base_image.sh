#!/usr/bin/env bash
# Makes a Debian base image without any image registry: debootstrap from the Debian mirror that this machine itself uses,
# then `docker import`. About 40 seconds. Needs root (debootstrap makes device files and enters the new tree).
#
#   base_image.sh [TAG [SUITE]]      TAG: troop-base:bookworm     SUITE: bookworm | bullseye | … (else what TAG says)
#   TROOP_MIRROR=URL                 another mirror than the one in this machine's apt sources
#   docker build --network host --build-arg BASE=troop-base:bookworm -t troop-sandbox - < Dockerfile
set -euo pipefail

tag=${1:-troop-base:bookworm}
suite=${2:-${tag##*:}}

fail() {
  echo "base_image.sh: $*" >&2
  exit 1
}

# URIs of the entries of this machine's apt sources (both formats: deb822 and one line) that deb-serve SUITE's Debian: an entry
# counts when the `main` component of a Debian suite is in it, so third-party archives, whatever their suite is called, do not.
debian_uris() {
  shopt -s nullglob
  local files=(/etc/apt/sources.lis[t] /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources)
  awk '
    function has(words, wanted,   list, n, i) {
      n = split(words, list, /[ \t]+/)
      for (i = 1; i <= n; i++) if (list[i] ~ wanted) return 1
      return 0
    }
    function offer(types, uris, suites, components,   list, n, i) {
      # Only a mirror of the distribution itself has a release called by one of its own code names.
      if (!has(types, "^deb$") || !has(components, "^main$")) return
      if (!has(suites, "^(buster|bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$")) return
      n = split(uris, list, /[ \t]+/)
      for (i = 1; i <= n; i++) if (list[i] ~ /^https?:/) print list[i]
    }
    function flush_stanza() {
      if (enabled) offer(field["types"], field["uris"], field["suites"], field["components"])
      delete field; key = ""; enabled = 1
    }
    FNR == 1 { if (NR > 1) flush_stanza(); enabled = 1; deb822 = (FILENAME ~ /\.sources$/) }
    /^[ \t]*#/ { next }
    !deb822 && $1 == "deb" {
      line = $0
      sub(/^deb[ \t]+/, "", line)
      sub(/^\[[^]]*\][ \t]*/, "", line)
      n = split(line, word, /[ \t]+/)
      components = ""
      for (i = 3; i <= n; i++) components = components " " word[i]
      offer("deb", word[1], word[2], components)
      next
    }
    deb822 && /^[ \t]*$/ { flush_stanza(); next }
    deb822 && /^[ \t]/ { if (key != "") field[key] = field[key] " " $0; next }
    deb822 && match($0, /^[A-Za-z-]+:/) {
      key = tolower(substr($0, 1, RLENGTH - 1))
      value = substr($0, RLENGTH + 1)
      gsub(/^[ \t]+|[ \t]+$/, "", value)
      field[key] = value
      if (key == "enabled" && tolower(value) == "no") enabled = 0
    }
    END { flush_stanza() }
  ' "${files[@]}" /dev/null
}

[ "$(id -u)" = 0 ] || fail "needs root for debootstrap: type  sudo $0 $tag $suite"
command -v debootstrap >/dev/null || fail "debootstrap is missing: type  apt-get install -y debootstrap"
command -v docker >/dev/null || fail "the docker command is missing: type  apt-get install -y docker.io"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || fail "no Docker daemon answers: start dockerd, or set DOCKER_HOST"
[ -e "/usr/share/debootstrap/scripts/$suite" ] || fail "debootstrap knows no suite '$suite': give one such as bookworm or bullseye"

mirror=${TROOP_MIRROR:-$(debian_uris | head -n 1)}
[ -n "$mirror" ] || fail "no Debian archive in this machine's apt sources: set TROOP_MIRROR=URL of a Debian mirror"

tree=$(mktemp -d "${TMPDIR:-/tmp}/troop-base.XXXXXX")
trap 'rm -rf --one-file-system "$tree"' EXIT

# What apt was told about proxies here holds for debootstrap's downloads too; it does not enter the image.
proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy 2>/dev/null | head -n 1 || true)
[ -z "$proxy" ] || export http_proxy=${http_proxy:-$proxy}

include=()
case $mirror in https:*) include=(--include=ca-certificates) ;; esac
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
echo 'deb '"$mirror $suite"' main' >"$tree/root/etc/apt/sources.list"
find "$tree/root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$tree/root/var/cache/apt/archives" "$tree/root/var/lib/apt/lists" "$tree/root/usr/share/man" "$tree/root/usr/share/locale"
mkdir -p "$tree/root/var/cache/apt/archives/partial" "$tree/root/var/lib/apt/lists/partial"
rm -f "$tree/root/etc/resolv.conf" "$tree/root/etc/hostname"
case $mirror in
  https:*)  # an https mirror behind a private authority can only be reached with that authority's (public) certificate
    cp /usr/local/share/ca-certificates/*.crt "$tree/root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$tree/root" update-ca-certificates >/dev/null 2>&1
    ;;
esac

tar -C "$tree/root" --numeric-owner --one-file-system -c . |
  docker import --change 'CMD ["bash"]' --change 'LABEL troop.base=debootstrap' - "$tag" >/dev/null
echo "base_image.sh: $tag is there"
