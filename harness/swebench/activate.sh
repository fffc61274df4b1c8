# The official evaluation scripts activate an environment the way conda does. There is one: @ENV@.
conda() {
  [ "${1-}" = activate ] || return 0
  export CONDA_DEFAULT_ENV=testbed VIRTUAL_ENV=@ENV@
  case ":$PATH:" in
    *":@ENV@/bin:"*) ;;
    *) export PATH=@ENV@/bin:$PATH ;;
  esac
}
