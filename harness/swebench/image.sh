# What is done in a sandbox in which a layer of an environment image is made (layers.py), a function for each step.

# Prints the path of the base's interpreter of that version; fails where there is none.
find_python() {
  for p in $(command -v "python$1") "/usr/bin/python$1" "/usr/local/bin/python$1" $(command -v python3); do
    "$p" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$1" && readlink -f "$p" && return
  done
  return 1
}

# Makes the bare environment with this uv on top of this interpreter of the base. /tmp/interpreter.c: its Python.
make_environment() {
  "$1" venv --quiet --no-project --python "$2" @ENV@ \
    && rm @ENV@/bin/python* \
    && gcc -O2 "-DBASE=\"$2\"" '-DENVIRONMENT="@ENV@"' -o @ENV@/bin/python -x c /tmp/interpreter.c \
    && ln -s python @ENV@/bin/python3 \
    && ln -s python "@ENV@/bin/python$("$2" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
    && rm -rf @ENVDIR@ && ln -s @ENV@ @ENVDIR@ \
    && @ENV@/bin/python -c 'import sys; assert sys.prefix == "@ENV@", sys.prefix'
}

_sources=/etc/apt/sources.list.d/troop.list _apt=/etc/apt/apt.conf.d/99troop

# Has apt ask this Debian mirror, unless the image names archives of its own.
bring_sources() {
  if ! grep -qsr '^deb\|^URIs' /etc/apt/sources.list /etc/apt/sources.list.d; then
    . /etc/os-release
    echo "deb $1 $VERSION_CODENAME main" > $_sources
    [ -z "${SSL_CERT_FILE-}" ] || echo "Acquire::https::CAInfo \"$SSL_CERT_FILE\";" > $_apt
  fi
}

take_sources_away() {
  rm -f $_sources $_apt
}

# Succeeds where what is installed is the tree where it lies: pip notes it (PEP 610), or setuptools leaves a link;
# meson-python's loader builds again on import. conda has a link python3.1 beside python3.10.
is_editable() {
  cd "$(ls -d @ENV@/lib/python3*/site-packages | tail -n 1)" && ! ls _*_editable_loader.py 2> /dev/null && {
    grep -lsE '"editable": *true' *.dist-info/direct_url.json | xargs -r grep -ls 'file:///testbed'
    grep -ls '^/testbed' *.egg-link
  } | grep -q .
}

# Not below tests: what they look for may be counted.
compile_tree() {
  @ENV@/bin/python -m compileall -q -x '(^|/)(tests?|testing|roots|\.git|\.tox|build)(/|$)' /testbed > /dev/null 2>&1
  true
}
