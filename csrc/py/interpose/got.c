/* got.c - replacing entries of the global offset tables of loaded objects.
 *
 * A call to a function of another library goes through an entry of the caller's own table (JUMP_SLOT;
 * GLOB_DAT where code was compiled with -fno-plt, or takes the address).  Writing another address there
 * redirects the calls of that one object and of nobody else: the technique of memray and libco.
 *
 * The original is what the dynamic linker finds by name, so libraries that were preloaded and the
 * interceptors of sanitizers stay in the chain.  But it must not lead back to its replacement.  In an executable that is
 * not position-independent and takes a function's address, that address is the executable's own PLT entry, for
 * every object of the process and for dlsym(), too: that entry jumps through the offset table which we patch, and
 * replacement and original would call each other for ever.  (Debian's python3 does so with fsync and fdatasync.)  So an
 * original counts as proven only if the object it lies in has no entry that will hold the replacement: what cannot
 * call the replacement by this name cannot come back to it.  Else the next definition in the order of loading
 * is asked, and so on to the C library, which is never patched.
 *
 * Libraries that call through such an address meet the replacement as well: to them it is the function.
 *
 * An entry that is ours already is skipped, so the pass may be repeated when modules were loaded.  It looks at
 * each object twice, then no more (with every module it would walk through all there are): a lazy resolver that ran
 * on another thread meanwhile may have written over an entry.  When something was unloaded all objects are new
 * again, for they may lie where others were.
 *
 * Where the table is read-only after relocation (RELRO, -z now) its page is made writable for the moment
 * of the write.
 *
 * Rejected: symbol interposition by LD_PRELOAD (must be there before the process starts, and hits every
 * library), rewriting code, hooking dlopen (it resolves by its caller). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "base/elf.h"
#include "py/interpose/got.h"

#if defined(__x86_64__)
enum { REL_JUMP = R_X86_64_JUMP_SLOT, REL_GLOB = R_X86_64_GLOB_DAT };
#else
enum { REL_JUMP = R_AARCH64_JUMP_SLOT, REL_GLOB = R_AARCH64_GLOB_DAT };
#endif

/* What the dynamic section of an object says about its relocations. */
typedef struct dynobj {
  uintptr_t base;
  const ElfW(Sym) * syms;
  const char *strings;
  const ElfW(Rela) * rela[2];
  size_t bytes[2];
  uintptr_t relro_lo, relro_hi; /* pages that are read-only by now */
} dynobj;

typedef struct pass {
  const hook *hooks;
  size_t n;
  got_kind kind;
  bool restore;
  void (*each)(const char *path, const char *name, void *arg);
  void *arg;
  int failed; /* errno */
} pass;

static uintptr_t page_down(uintptr_t p) { return p & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1); }

/* Some linkers relocate the dynamic section, some do not. */
static uintptr_t absolute(uintptr_t base, uintptr_t p) { return p < base ? base + p : p; }

static bool read_object(const struct dl_phdr_info *info, dynobj *o) {
  memset(o, 0, sizeof *o);
  o->base = info->dlpi_addr;
  const ElfW(Dyn) *d = NULL;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
    if (ph->p_type == PT_DYNAMIC) d = (const void *)(info->dlpi_addr + ph->p_vaddr);
    if (ph->p_type != PT_GNU_RELRO) continue;
    o->relro_lo = page_down(info->dlpi_addr + ph->p_vaddr);
    o->relro_hi = page_down(info->dlpi_addr + ph->p_vaddr + ph->p_memsz);
  }
  for (; d && d->d_tag != DT_NULL; d++) {
    uintptr_t p = absolute(o->base, d->d_un.d_ptr);
    switch (d->d_tag) {
      case DT_SYMTAB: o->syms = (const void *)p; break;
      case DT_STRTAB: o->strings = (const void *)p; break;
      case DT_JMPREL: o->rela[0] = (const void *)p; break;
      case DT_PLTRELSZ: o->bytes[0] = d->d_un.d_val; break;
      case DT_RELA: o->rela[1] = (const void *)p; break;
      case DT_RELASZ: o->bytes[1] = d->d_un.d_val; break;
      default: break;
    }
  }
  return o->syms && o->strings;
}

static bool set_entry(const dynobj *o, void **entry, void *to) {
  uintptr_t at = (uintptr_t)entry, page = page_down(at);
  bool readonly = at >= o->relro_lo && at < o->relro_hi;
  size_t size = (size_t)sysconf(_SC_PAGESIZE);
  if (readonly && mprotect((void *)page, size, PROT_READ | PROT_WRITE) != 0) return false;
  store_rel((void *_Atomic *)entry, to);
  if (readonly) mprotect((void *)page, size, PROT_READ);
  return true;
}

static const hook *hook_named(const pass *p, const char *name, unsigned kind) {
  for (size_t i = 0; i < p->n; i++) {
    const hook *h = &p->hooks[i];
    if (h->where & kind && h->name[0] == name[0] && strcmp(h->name, name) == 0) return h;
  }
  return NULL;
}

/* The name for which the dynamic linker fills in an entry, NULL: a relocation of another kind. */
static const char *entry_name(const dynobj *o, const ElfW(Rela) * r) {
  unsigned type = (unsigned)ELF64_R_TYPE(r->r_info);
  if (type != REL_JUMP && type != REL_GLOB) return NULL;
  return o->strings + o->syms[ELF64_R_SYM(r->r_info)].st_name;
}

static void patch_table(pass *p, const dynobj *o, int t, const char *path, unsigned kind) {
  const ElfW(Rela) *r = o->rela[t], *end = (const void *)((const char *)r + o->bytes[t]);
  for (; r && r < end; r++) {
    const char *name = entry_name(o, r);
    const hook *h = name ? hook_named(p, name, kind) : NULL;
    if (!h || (h->original && !*h->original)) continue;
    void **entry = (void **)(o->base + r->r_offset);
    bool ours = *entry == h->replacement;
    if (p->restore) {
      if (ours) set_entry(o, entry, *h->original);
    } else if (!ours && !set_entry(o, entry, h->replacement)) {
      p->failed = errno;
    } else if (p->each) {
      p->each(path, h->name, p->arg);
    }
  }
}

static void patch_object(struct dl_phdr_info *info, void *arg) {
  pass *p = arg;
  dynobj o;
  unsigned kind = p->kind(info->dlpi_name);
  if (!kind || !read_object(info, &o)) return;
  for (int t = 0; t < 2; t++) patch_table(p, &o, t, info->dlpi_name, kind);
}

/* ---- walks --------------------------------------------------------------------------------------------------- */

typedef struct got_seen {
  uintptr_t base;
  const void *headers;
  unsigned times;
} got_seen;

typedef struct walking {
  got_walk *w;
  unsigned times;
  size_t i; /* objects keep their order: where this one stood the last time */
  void (*visit)(struct dl_phdr_info *info, void *arg);
  void *arg;
} walking;

/* What the walk knows of an object, made if need be; NULL: no memory. */
static got_seen *seen(got_walk *w, size_t guess, const struct dl_phdr_info *info) {
  for (size_t k = 0; k < w->n; k++) {
    got_seen *s = &w->at[(guess + k) % w->n];
    if (s->base == info->dlpi_addr && s->headers == info->dlpi_phdr) return s;
  }
  if (w->n == w->room) {
    size_t room = w->room ? 2 * w->room : 64;
    got_seen *at = realloc(w->at, room * sizeof *at);
    if (!at) return NULL;
    w->at = at;
    w->room = room;
  }
  w->at[w->n] = (got_seen){info->dlpi_addr, info->dlpi_phdr, 0};
  return &w->at[w->n++];
}

static int step(struct dl_phdr_info *info, size_t size, void *arg) {
  walking *k = arg;
  got_walk *w = k->w;
  unsigned long long subs = size > offsetof(struct dl_phdr_info, dlpi_subs) ? info->dlpi_subs : w->subs + 1;
  if (k->i == 0 && w->subs != subs) {
    w->n = 0;
    w->subs = subs;
  }
  got_seen *s = seen(w, k->i++, info);
  if (s && s->times >= k->times) return 0;
  if (s) s->times++;
  k->visit(info, k->arg);
  return 0;
}

void got_visit(got_walk *w, unsigned times, void (*visit)(struct dl_phdr_info *info, void *arg), void *arg) {
  got_walk none = {0};
  walking k = {.w = w ? w : &none, .times = times, .visit = visit, .arg = arg};
  dl_iterate_phdr(step, &k);
  free(none.at);
}

void got_forget(got_walk *w) {
  free(w->at);
  *w = (got_walk){0};
}

int got_patch(got_walk *w, const hook *hooks, size_t n, got_kind kind,
               void (*each)(const char *path, const char *name, void *arg), void *arg) {
  pass p = {.hooks = hooks, .n = n, .kind = kind, .each = each, .arg = arg};
  got_visit(w, 2, patch_object, &p);
  return p.failed;
}

void got_restore(const hook *hooks, size_t n, got_kind kind) {
  pass p = {.hooks = hooks, .n = n, .kind = kind, .restore = true};
  got_visit(NULL, 1, patch_object, &p);
}

bool got_calls(const struct dl_phdr_info *info, bool (*wanted)(const char *name)) {
  dynobj o;
  if (!read_object(info, &o)) return false;
  for (int t = 0; t < 2; t++) {
    const ElfW(Rela) *r = o.rela[t], *end = (const void *)((const char *)r + o.bytes[t]);
    for (; r && r < end; r++) {
      const char *name = entry_name(&o, r);
      if (name && wanted(name)) return true;
    }
  }
  return false;
}

/* ---- originals ------------------------------------------------------------------------------------------------ */

typedef struct proof {
  const pass *p;
  const hook *h;
  uintptr_t at; /* a candidate */
  bool loops;
} proof;

static int prove(struct dl_phdr_info *info, size_t size, void *arg) {
  (void)size;
  proof *f = arg;
  if (!object_holds(info, f->at)) return 0;
  dynobj o;
  unsigned kind = f->p->kind(info->dlpi_name);
  if (!kind || !read_object(info, &o)) return 1;
  for (int t = 0; t < 2; t++) {
    const ElfW(Rela) *r = o.rela[t], *end = (const void *)((const char *)r + o.bytes[t]);
    for (; r && r < end; r++) {
      const char *name = entry_name(&o, r);
      const hook *h = name ? hook_named(f->p, name, kind) : NULL;
      f->loops |= h && h->replacement == f->h->replacement;
    }
  }
  return 1;
}

static bool proven(const pass *p, const hook *h, void *original) {
  proof f = {.p = p, .h = h, .at = (uintptr_t)original};
  dl_iterate_phdr(prove, &f);
  return !f.loops;
}

/* The first definition that is proven, in the order in which the objects of the program were loaded. */
static void *definition(const pass *p, const hook *h) {
  void *program = dlopen(NULL, RTLD_LAZY), *found = NULL;
  struct link_map *l = NULL;
  if (!program || dlinfo(program, RTLD_DI_LINKMAP, &l) != 0) l = NULL;
  for (; l && !found; l = l->l_next) {
    void *handle = l->l_name[0] ? dlopen(l->l_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    void *f = handle ? dlsym(handle, h->name) : NULL;
    if (f && proven(p, h, f)) found = f;
    if (handle) dlclose(handle);
  }
  if (program) dlclose(program);
  return found;
}

const char *got_resolve(const hook *hooks, size_t n, got_kind kind) {
  pass p = {.hooks = hooks, .n = n, .kind = kind};
  const char *unproven = NULL;
  for (size_t i = 0; i < n; i++) {
    const hook *h = &hooks[i];
    if (!h->original) continue;
    void *f = dlsym(RTLD_DEFAULT, h->name), *sure = !f || proven(&p, h, f) ? f : definition(&p, h);
    *h->original = sure ? sure : f;
    if (f && !sure) unproven = h->name;
  }
  return unproven;
}

static int adds(struct dl_phdr_info *info, size_t size, void *arg) {
  if (size >= offsetof(struct dl_phdr_info, dlpi_subs)) *(unsigned long long *)arg = info->dlpi_adds;
  return 1; /* the first object says it for all */
}

unsigned long long got_generation(void) {
  unsigned long long n = 0;
  dl_iterate_phdr(adds, &n);
  return n;
}
