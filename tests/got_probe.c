/* got_probe.c - a program with got.c in it, and the two libraries that it is linked with.
 *
 * `wait_once` of the first library comes back to itself through an entry of that name; that of the second calls nobody. */
#ifdef FRONT
int wait_once(int n);
int wait_often(int n);
int wait_once(int n) { return n > 0 ? wait_often(n) + 1 : 10; }
int wait_often(int n) { return wait_once(n - 1); } /* through the entry */
#elif defined(BACK)
int wait_once(int n);
int wait_once(int n) { return n + 20; }
#else
#include <stdio.h>
#include <string.h>

#include "py/interpose/got.h"

int wait_once(int n);
static int (*original)(int n);
static int replacement(int n) { return original(n) + 100; }

static const hook hooks[] = {{"wait_once", (void *)replacement, (void **)&original, 1}};
static unsigned kind(const char *path) { return !path[0] || strstr(path, "libfront"); }

int main(void) {
  const char *unproven = got_resolve(hooks, 1, kind);
  if (unproven) {
    printf("%s is not proven\n", unproven);
    return 0;
  }
  got_patch(NULL, hooks, 1, kind, NULL, NULL);
  printf("%d\n", wait_once(1));
  got_restore(hooks, 1, kind);
  printf("%d\n", wait_once(1));
  return 0;
}
#endif
