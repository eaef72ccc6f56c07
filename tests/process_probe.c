/* process_probe.c - what a library like ours may change of a process, to be compared: the words of all offset tables, the
 * handlers of all signals, how many have registered for forks. */
#define _GNU_SOURCE
#include <link.h>
#include <signal.h>
#include <string.h>

typedef struct words {
  const char *own; /* objects that are not looked at */
  unsigned long *to, n, room;
} words;

static void add(words *w, unsigned long at) {
  if (w->n < w->room) {
    w->to[2 * w->n] = at;
    w->to[2 * w->n + 1] = *(unsigned long *)at;
  }
  w->n++;
}

/* Of each function that the object calls: where it goes. */
static int object(struct dl_phdr_info *info, size_t size, void *arg) {
  (void)size;
  words *w = arg;
  if (strstr(info->dlpi_name, w->own)) return 0;
  const ElfW(Dyn) *d = NULL;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
  ElfW(Addr) rela[2] = {0, 0};
  size_t bytes[2] = {0, 0};
  for (; d && d->d_tag != DT_NULL; d++) {
    if (d->d_tag == DT_JMPREL) rela[0] = d->d_un.d_ptr;
    if (d->d_tag == DT_PLTRELSZ) bytes[0] = d->d_un.d_val;
    if (d->d_tag == DT_RELA) rela[1] = d->d_un.d_ptr;
    if (d->d_tag == DT_RELASZ) bytes[1] = d->d_un.d_val;
  }
  for (int t = 0; t < 2; t++) {
    if (rela[t] && rela[t] < info->dlpi_addr) rela[t] += info->dlpi_addr;
    const ElfW(Rela) *r = (const void *)rela[t];
    for (size_t i = 0; i < bytes[t] / sizeof *r; i++) {
      unsigned type = ELF64_R_TYPE(r[i].r_info);
#ifdef __x86_64__
      if (type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT)
#else
      if (type == R_AARCH64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT)
#endif
        add(w, info->dlpi_addr + r[i].r_offset);
    }
  }
  return 0;
}

/* Address and value of all words but those of objects whose path contains `own`, in pairs; returns how many. */
unsigned long tables(const char *own, unsigned long *to, unsigned long room) {
  words w = {.own = own, .to = to, .room = room};
  dl_iterate_phdr(object, &w);
  return w.n;
}

/* Signals that have a handler, as a mask. */
unsigned long handled(void) {
  unsigned long mask = 0;
  for (int sig = 1; sig <= SIGRTMAX; sig++) {
    struct sigaction sa;
    if (sigaction(sig, NULL, &sa) == 0 && sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN)
      mask |= 1ul << (sig - 1);
  }
  return mask;
}

/* Stands before the C library's: who registers handlers of forks. */
unsigned registered;
int __register_atfork(void (*a)(void), void (*b)(void), void (*c)(void), void *dso) {
  extern void *dlsym(void *, const char *);
  static int (*real)(void (*)(void), void (*)(void), void (*)(void), void *);
  if (!real) real = (int (*)(void (*)(void), void (*)(void), void (*)(void), void *))dlsym((void *)-1l, "__register_atfork");
  registered++;
  return real(a, b, c, dso);
}
