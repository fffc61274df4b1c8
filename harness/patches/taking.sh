# The functions that take a patch out of a sandbox or lay one, run inside: git of the system, the base's own index,
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

# The new files that are never part of a patch, for git to pass over.
note_junk() { cat > "$scratch/junk" << 'END'
@JUNK@
END
}

# Five lists, each ended by an empty record: changed; new; new and not ignored; no regular file; made by set-up.
# A file or directory that the attempt made unreadable could not be looked at: its owner may read again.
look() {
  note_junk
  find . -name .git -prune -o -type d ! -perm -500 -exec chmod u+rwx {} \; \
    -o -type f ! -perm -400 -exec chmod u+r {} \; 2>/dev/null || :
  safely diff-files --raw -z --no-abbrev --no-renames --ignore-submodules=none
  printf '\0'
  safely ls-files -z --others --exclude-from="$scratch/junk"
  printf '\0'
  safely ls-files -z --others --exclude-standard --exclude-from="$scratch/junk"
  printf '\0'
  find . -name .git -prune -o ! -type f ! -type d ! -type l -print0
  printf '\0'
  if test -f "$GIT_DIR/setup.made"; then cat "$GIT_DIR/setup.made"; fi
  printf '\0'
}

# A repository that the attempt made within the tree is listed as one directory: look again with that as the top.
# Standard input: these directories.
look_within() {
  note_junk
  export scratch
  cat > "$scratch/within"
  GIT_INDEX_FILE=$scratch/none
  xargs -0 -n 1 sh -c 'cd "$1" && GIT_WORK_TREE=$PWD "$git" ls-files -z --others --exclude-from="$scratch/junk"
    printf "\\0"' sh < "$scratch/within"
}

# A row of size and path for each path of standard input, in that order; none for what is gone meanwhile.
sizes() { xargs -0 -r stat -c '%s %n' -- 2>/dev/null || :; }

# Standard input, here and below: $1 bytes of deletions for --index-info, then the paths to take in.
stage() {
  cat > "$scratch/stage"
  head -c "$1" "$scratch/stage" | safely update-index -z --index-info
  tail -c "+$(($1 + 1))" "$scratch/stage" > "$scratch/paths"
}
take_in() { safely update-index -z --add --remove --replace "$@" --stdin; }

mark() {
  stage "$1"
  take_in < "$scratch/paths"
  printf %s "$(safely write-tree)" > "$GIT_DIR/setup.tree.new"
  cp -p "$GIT_INDEX_FILE" "$GIT_DIR/setup.index"
  mv "$GIT_DIR/setup.tree.new" "$GIT_DIR/setup.tree"
}

# git diffs a file that its index knows by the file itself: no object need be written, thousands of which take a minute.
difference() {
  mkdir "$scratch/objects"
  export GIT_OBJECT_DIRECTORY="$scratch/objects" GIT_ALTERNATE_OBJECT_DIRECTORIES="$GIT_DIR/objects"
  stage "$1"
  xargs -0 sh -c 'for path; do if test -L "$path"; then printf "%s\0" "$path"; fi; done' sh < "$scratch/paths" | take_in
  take_in --info-only < "$scratch/paths"
  safely diff-index --cached --patch --binary --full-index --no-renames --no-ext-diff --no-textconv \
    --no-color --no-relative --src-prefix=a/ --dst-prefix=b/ --unified=3 --inter-hunk-context=0 --submodule=short \
    "$base" --
}

# Standard input: $1 bytes of paths to remove, then those to put back. What replaced a path of the base with a
# directory, or a directory with a file, is in the way of the checkout.
put_back() {
  cat > "$scratch/all"
  head -c "$1" "$scratch/all" | xargs -0 -r rm -rf --
  tail -c "+$(($1 + 1))" "$scratch/all" > "$scratch/wanted"
  xargs -0 "$git" ls-files -z -- < "$scratch/wanted" > "$scratch/tracked"
  safely checkout-index --force -z --stdin < "$scratch/tracked"
}

# Standard input: a diff. As it is, else with the options $@, which let it lack context.
lay() {
  cat > "$scratch/patch"
  safely apply --whitespace=nowarn "$scratch/patch" || safely apply --whitespace=nowarn "$@" "$scratch/patch" 2> /dev/null
}
