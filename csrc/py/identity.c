/* identity.c - threading.get_ident() of a goroutine is its own.
 *
 * CPython asks pthread_self() who runs: RLock, the import lock, buffered I/O and the check for the main
 * thread go by the answer.  The entry of pthread_self in the global offset table of the interpreter (its
 * executable or libpython) is replaced by a function that answers with the goroutine's ident, which is
 * kept in its thread state, and stays the same wherever it runs.  Elsewhere, and in the interpreter when
 * no goroutine runs, the real one answers.
 *
 * Idents are addresses 64 bytes apart in one mapping that is never written: reading behind one finds
 * zeros, as much as glibc's thread descriptor is long, so a pthread_*() function that is handed one fails
 * cleanly.
 *
 * The main goroutine of run() keeps the ident of the thread that lends its state: on the main thread it
 * is the main thread to Python, wherever it runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tstate.h"

enum { IDENT_STEP = 64, PAGE = 4096 };
#define IDENT_SPACE ((size_t)4 << 30) /* address space for 64 M goroutines, never touched */

static pthread_t (*real_self)(void);
static unsigned patched;
static char *idents;
static size_t next_ident;

static pthread_t goroutine_self(void) {
  M *m = getm();
  if (m) {
    G *gp = load_rlx(&m->curg);
    if (gp && gp->kind == GK_HOST) return (pthread_t)ts_of(gp)->thread_id;
  }
  return real_self();
}

unsigned long identity_new(void) {
  if (!idents) {
    idents = mmap(NULL, IDENT_SPACE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (idents == MAP_FAILED) { /* address space is limited: any small, distinct, readable place */
      idents = mmap(NULL, PAGE * 256, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
  }
  return (unsigned long)(uintptr_t)idents + IDENT_STEP * next_ident++;
}

/* ---- the offset table ---------------------------------------------------------------------------------- */

#if defined(__x86_64__)
enum { REL_JUMP = R_X86_64_JUMP_SLOT, REL_GLOB = R_X86_64_GLOB_DAT };
#else
enum { REL_JUMP = R_AARCH64_JUMP_SLOT, REL_GLOB = R_AARCH64_GLOB_DAT };
#endif

typedef struct dynobj {
  const ElfW(Sym) * syms;
  const char *strings;
  const ElfW(Rela) * rela[2];
  size_t bytes[2];
} dynobj;

static uintptr_t absolute(uintptr_t base, uintptr_t p) { return p < base ? base + p : p; }

static dynobj read_dynamic(uintptr_t base, const ElfW(Dyn) * d) {
  dynobj o = {0};
  for (; d->d_tag != DT_NULL; d++) {
    uintptr_t p = absolute(base, d->d_un.d_ptr);
    switch (d->d_tag) {
      case DT_SYMTAB: o.syms = (const void *)p; break;
      case DT_STRTAB: o.strings = (const void *)p; break;
      case DT_JMPREL: o.rela[0] = (const void *)p; break;
      case DT_PLTRELSZ: o.bytes[0] = d->d_un.d_val; break;
      case DT_RELA: o.rela[1] = (const void *)p; break;
      case DT_RELASZ: o.bytes[1] = d->d_un.d_val; break;
      default: break;
    }
  }
  return o;
}

static void patch_slot(void **slot, void *to) {
  void *page = (void *)((uintptr_t)slot & ~(uintptr_t)(PAGE - 1));
  /* With -z now the table is read-only; it stays writable afterwards, as in a lazily bound build. */
  if (mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE) != 0 &&
      mprotect(page, PAGE, PROT_READ | PROT_WRITE) != 0)
    return;
  store_rel((void *_Atomic *)slot, to);
  patched++;
}

static void patch_object(uintptr_t base, const dynobj *o, void *to) {
  for (int t = 0; t < 2; t++) {
    const ElfW(Rela) *end = (const void *)((const char *)o->rela[t] + o->bytes[t]);
    for (const ElfW(Rela) *r = o->rela[t]; o->rela[t] && r < end; r++) {
      unsigned type = (unsigned)ELF64_R_TYPE(r->r_info);
      if (type != REL_JUMP && type != REL_GLOB) continue;
      const char *name = o->strings + o->syms[ELF64_R_SYM(r->r_info)].st_name;
      if (strcmp(name, "pthread_self") == 0) patch_slot((void **)(base + r->r_offset), to);
    }
  }
}

static bool is_interpreter(const char *name) {
  if (!name[0]) return true; /* the executable */
  const char *slash = strrchr(name, '/');
  return strncmp(slash ? slash + 1 : name, "libpython", 9) == 0;
}

static int patch_one(struct dl_phdr_info *info, size_t size, void *to) {
  (void)size;
  if (!is_interpreter(info->dlpi_name)) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    const ElfW(Dyn) *dyn = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    dynobj o = read_dynamic(info->dlpi_addr, dyn);
    if (o.syms && o.strings) patch_object(info->dlpi_addr, &o, to);
  }
  return 0;
}

/* false: the interpreter has no such entry (a static libc): idents are the threads' then. */
bool identity_install(void) {
  real_self = (pthread_t(*)(void))dlsym(RTLD_DEFAULT, "pthread_self");
  if (!real_self) return false;
  patched = 0;
  dl_iterate_phdr(patch_one, (void *)goroutine_self);
  return patched > 0;
}

void identity_remove(void) {
  if (patched) dl_iterate_phdr(patch_one, (void *)real_self);
}

unsigned identity_patched(void) { return patched; }
