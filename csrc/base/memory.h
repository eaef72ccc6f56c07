/* memory.h - how much memory the process may have, and has: memory_linux.c. */
#ifndef GMPRT_BASE_MEMORY_H
#define GMPRT_BASE_MEMORY_H

#include "base/base.h"

uint64_t os_memory(void);
uint64_t os_resident(void);

#endif
