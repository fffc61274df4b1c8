#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

static int in_other_environment(const char *path) {
  const char *places[] = {"pyvenv.cfg", "../pyvenv.cfg"};
  const char *slash = strrchr(path, '/');
  char file[PATH_MAX];
  if (slash == NULL) return 0;
  for (int i = 0; i < 2; i++) {
    int length = snprintf(file, sizeof file, "%.*s/%s", (int)(slash - path), path, places[i]);
    if (length < (int)sizeof file && access(file, F_OK) == 0) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  char *path = argc > 0 ? argv[0] : "";
  if (strchr(path, '/') == NULL) path = (char *)getauxval(AT_EXECFN);  /* found in PATH */
  argv[0] = path != NULL && in_other_environment(path) ? path : ENVIRONMENT "/bin/python";
  execv(BASE, argv);
  perror(BASE);
  return 127;
}
