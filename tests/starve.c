/* starve.c - preloaded by tests: memory runs out for gmprt's extension module, and for nobody else, while
 * `starving` is set.  (Its callers have their own ways to fail, which are not what these tests are about.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

atomic_int starving, refused;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static int refuses(void *caller) {
  Dl_info info;
  if (!starving || !dladdr(caller, &info) || !info.dli_fname || !strstr(info.dli_fname, "/_native.")) return 0;
  refused++;
  return 1;
}

void *malloc(size_t n) { return refuses(__builtin_return_address(0)) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) {
  return refuses(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) { return refuses(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n); }
