# Becomes the image's Python with the arguments given: any will do for the shim, and there may be several. The system's
# own is the least likely to be changed.
command -v git > /dev/null || [ -x /opt/troop/host/bin/git ] || { echo 'its image has no git, which a sandbox needs' >&2; exit 127; }
for p in /usr/bin/python3 python3 python /opt/miniconda3/bin/python /opt/troop/host/bin/python3; do
  p=$(command -v "$p") || continue
  case $(readlink -f "$p") in
    *python3.[6-9] | *python3.[1-9][0-9]) ;;  # the name tells, which is sooner known than asked
    *) "$p" -c 'import sys; sys.exit(sys.version_info < (3, 6))' || continue ;;
  esac
  exec "$p" "$@"
done
echo 'its image has no Python 3.6 or newer, which a sandbox needs: choose another image' >&2
exit 127
