/* elf.h - loaded objects: the program, libraries, extension modules. */
#ifndef GMPRT_BASE_ELF_H
#define GMPRT_BASE_ELF_H

#include <link.h>
#include <stdbool.h>
#include <stdint.h>

/* Does that address lie in it? */
static inline bool object_holds(const struct dl_phdr_info *info, uintptr_t at) {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
    if (ph->p_type == PT_LOAD && at - (info->dlpi_addr + ph->p_vaddr) < ph->p_memsz) return true;
  }
  return false;
}

#endif
