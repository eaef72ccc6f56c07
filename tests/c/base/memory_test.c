/* memory_test.c - how much memory the process may have. */
#include <unistd.h>

#include "base/memory.h"
#include "stubhost.h"

TEST(no_more_memory_than_the_machine_has) {
  uint64_t has = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
  CHECK(os_memory() > 1 << 20 && os_memory() <= has);
}
