# The first process of a container that a patch is graded in. Arguments: a word that marks the program's own lines, the
# sizes of patch and script in bytes, a command that goes to the repository, and the ways to lay the patch. It reads both
# from standard input. What it has to say goes to standard error; the script's output, both streams in one, is all there
# is on standard output.
# The watcher kills until the first process ends, too: something may just be starting.
exec 3<&0 0</dev/null
head -c "$2" <&3 > /tmp/patch.diff
head -c "$3" <&3 > /eval.sh
{ cat <&3 > /dev/null; while :; do kill -9 -1; sleep 0.2; done; } &
exec 3<&-
eval "$4" >&2 || exit
n=0 applied= mark=$1
shift 4
for command; do
  n=$((n + 1))
  if (eval "$command /tmp/patch.diff") >> /tmp/.applied 2>&1; then applied=$n; break; fi
done
tail -c 4000 /tmp/.applied >&2
rm -f /tmp/.applied
if [ -n "$applied" ]; then
  printf '\n%s applied %s\n' "$mark" "$applied" >&2
else
  printf '\n%s refused\n' "$mark" >&2
  exit
fi
began=$(date +%s.%N)
/bin/bash /eval.sh 2>&1
status=$?
printf '%s ended %s %s %s\n' "$mark" "$status" "$began" "$(date +%s.%N)" >&2
