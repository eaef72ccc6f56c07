/* got.h - replacing entries of the global offset tables of loaded objects. */
#ifndef GMPRT_GOT_H
#define GMPRT_GOT_H

#include <stdbool.h>
#include <stddef.h>

/* One C library function and what stands in for it. */
typedef struct hook {
  const char *name;
  void *replacement;
  void **original; /* filled in by got_resolve(); NULL there: the library has no such function */
  unsigned where;  /* kinds of objects in which it is replaced: bits of the caller's */
} hook;

/* Which kind of object is this? 0: leave it alone. */
typedef unsigned (*got_kind)(const char *path);

/* Finds the originals.  Returns the name of one that would lead back to its replacement, if there is such: then nothing
 * may be patched.  NULL: all is well. */
const char *got_resolve(const hook *hooks, size_t n, got_kind kind);

/* Makes the entries of all loaded objects what they should be; may be repeated, for objects that were
 * loaded meanwhile.  each (may be NULL) hears of every entry that is ours then. */
void got_patch(const hook *hooks, size_t n, got_kind kind,
               void (*each)(const char *path, const char *name, void *arg), void *arg);

/* Puts the originals back. */
void got_restore(const hook *hooks, size_t n, got_kind kind);

/* Does the object call a function that is `wanted`, or take its address? */
struct dl_phdr_info;
bool got_calls(const struct dl_phdr_info *info, bool (*wanted)(const char *name));

/* Counts up whenever an object is loaded. */
unsigned long long got_generation(void);

#endif
