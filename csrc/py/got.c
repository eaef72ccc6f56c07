/* got.c - replacing entries of the global offset tables of loaded objects.
 *
 * A call to a function of another library goes through an entry of the caller's own table (JUMP_SLOT;
 * GLOB_DAT where code was compiled with -fno-plt, or takes the address).  Writing another address there
 * redirects the calls of that one object and of nobody else: the technique of memray and libco.
 *
 * The original is what the dynamic linker finds by name, so libraries that were preloaded and the
 * interceptors of sanitizers stay in the chain.  An entry that is ours already is skipped, so the pass may
 * be repeated: when modules were loaded, and because a lazy resolver that ran on another thread
 * meanwhile may have written over an entry.
 *
 * Where the table is read-only after relocation (RELRO, -z now) its page is made writable for the moment
 * of the write.
 *
 * Rejected: symbol interposition by LD_PRELOAD (must be there before the process starts, and hits every
 * library), rewriting code, hooking dlopen (it resolves by its caller). */
#define _GNU_SOURCE
#include "got.h"

#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base.h"

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
} pass;

void got_resolve(const hook *hooks, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (hooks[i].original) *hooks[i].original = dlsym(RTLD_DEFAULT, hooks[i].name);
}

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
    if (h->where & kind && h->name[0] == name[0] && strcmp(h->name, name) == 0)
      return h->original && !*h->original ? NULL : h;
  }
  return NULL;
}

static void patch_table(const pass *p, const dynobj *o, int t, const char *path, unsigned kind) {
  const ElfW(Rela) *r = o->rela[t], *end = (const void *)((const char *)r + o->bytes[t]);
  for (; r && r < end; r++) {
    unsigned type = (unsigned)ELF64_R_TYPE(r->r_info);
    if (type != REL_JUMP && type != REL_GLOB) continue;
    const hook *h = hook_named(p, o->strings + o->syms[ELF64_R_SYM(r->r_info)].st_name, kind);
    if (!h) continue;
    void **entry = (void **)(o->base + r->r_offset);
    bool ours = *entry == h->replacement;
    if (p->restore) {
      if (ours) set_entry(o, entry, *h->original);
    } else if ((ours || set_entry(o, entry, h->replacement)) && p->each) {
      p->each(path, h->name, p->arg);
    }
  }
}

static int visit(struct dl_phdr_info *info, size_t size, void *arg) {
  (void)size;
  pass *p = arg;
  dynobj o;
  unsigned kind = p->kind(info->dlpi_name);
  if (!kind || !read_object(info, &o)) return 0;
  for (int t = 0; t < 2; t++) patch_table(p, &o, t, info->dlpi_name, kind);
  return 0;
}

void got_patch(const hook *hooks, size_t n, got_kind kind,
               void (*each)(const char *path, const char *name, void *arg), void *arg) {
  pass p = {.hooks = hooks, .n = n, .kind = kind, .each = each, .arg = arg};
  dl_iterate_phdr(visit, &p);
}

void got_restore(const hook *hooks, size_t n, got_kind kind) {
  pass p = {.hooks = hooks, .n = n, .kind = kind, .restore = true};
  dl_iterate_phdr(visit, &p);
}

bool got_calls(const struct dl_phdr_info *info, bool (*wanted)(const char *name)) {
  dynobj o;
  if (!read_object(info, &o)) return false;
  for (int t = 0; t < 2; t++) {
    const ElfW(Rela) *r = o.rela[t], *end = (const void *)((const char *)r + o.bytes[t]);
    for (; r && r < end; r++) {
      unsigned type = (unsigned)ELF64_R_TYPE(r->r_info);
      if (type != REL_JUMP && type != REL_GLOB) continue;
      if (wanted(o.strings + o.syms[ELF64_R_SYM(r->r_info)].st_name)) return true;
    }
  }
  return false;
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
