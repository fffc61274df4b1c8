# Before every script that takes a patch out of a sandbox or lays one: git of the system, the base's own index,
# nothing of the attempt's configuration. Exit codes: 71 the base is gone, 72 there is no git.
set -eu
PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin:$PATH
for name in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done
unset XDG_CONFIG_HOME
export PATH LC_ALL=C HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1
export GIT_DIR=@TROOPDIR@/base.git GIT_WORK_TREE=@WORKDIR@ GIT_LITERAL_PATHSPECS=1 GIT_OPTIONAL_LOCKS=0
test -f "$GIT_DIR/HEAD" || exit 71
git=$(command -v git) || exit 72
export git
test -x @WORKDIR@ || chmod u+rwx @WORKDIR@ || :
cd @WORKDIR@
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
base=HEAD
GIT_INDEX_FILE=$scratch/index
if test -f "$GIT_DIR/setup.tree"; then
  base=$(cat "$GIT_DIR/setup.tree")
  cp -p "$GIT_DIR/setup.index" "$GIT_INDEX_FILE"
else
  cp -p "$GIT_DIR/index" "$GIT_INDEX_FILE"
fi
export GIT_INDEX_FILE
safely() { "$git" -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.untrackedCache=false "$@"; }
