/* got.h - replacing entries of the global offset tables of loaded objects. */
#ifndef GMPRT_PY_INTERPOSE_GOT_H
#define GMPRT_PY_INTERPOSE_GOT_H

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

/* Objects that a walk has seen, so that the next one passes over them.  Begins as zeros. */
typedef struct got_walk {
  unsigned long long subs; /* objects that had been unloaded by then: their addresses may be used again */
  struct got_seen *at;
  size_t n, room;
} got_walk;

/* It begins anew. */
void got_forget(got_walk *w);

struct dl_phdr_info;

/* Calls visit(info, arg) for every loaded object that this walk has not visited `times` times.  The linker's lock is held
 * meanwhile: no Python object may be made, which could run the collector and switch. */
void got_visit(got_walk *w, unsigned times, void (*visit)(struct dl_phdr_info *info, void *arg), void *arg);

/* Makes the entries of loaded objects what they should be; to be repeated, with the same walk, for objects that
 * were loaded meanwhile.  NULL: of all objects.  each (may be NULL) hears of every entry that is ours then.  Returns 0, or
 * the errno of an entry that could not be written; the others have been. */
int got_patch(got_walk *w, const hook *hooks, size_t n, got_kind kind,
               void (*each)(const char *path, const char *name, void *arg), void *arg);

/* Puts the originals back. */
void got_restore(const hook *hooks, size_t n, got_kind kind);

/* Does the object call a function that is `wanted`, or take its address? */
bool got_calls(const struct dl_phdr_info *info, bool (*wanted)(const char *name));

/* Counts up whenever an object is loaded. */
unsigned long long got_generation(void);

#endif
