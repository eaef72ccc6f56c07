/* memory_linux.c - how much memory the process may have: the machine's, or what its control group leaves of that.
 *
 * /proc/self/cgroup names the group, "0::/path" of v2 or "4:memory:/path" of v1, and the limits of all above it count, too.
 * In a container the path may be the host's, where only the topmost folder is there, and that is the container's.
 * What cannot be read limits nothing. */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/number.h"

enum { LONGEST = 1024 }; /* of paths that are followed */

static uint64_t limit_in(const char *root, const char *group, const char *file) {
  char path[LONGEST + 128], line[32];
  snprintf(path, sizeof path, "%s%s/%s", root, group, file);
  FILE *f = fopen(path, "re");
  const char *at = f ? fgets(line, sizeof line, f) : NULL;
  if (f) fclose(f);
  uint64_t n;
  return at && number_read(&at, &n) ? n : UINT64_MAX; /* "max" */
}

/* The least of the group's and of those above. */
static uint64_t limit_of(const char *root, char *group, const char *file) {
  uint64_t least = UINT64_MAX;
  for (char *end; (end = strrchr(group, '/')) != NULL; *end = 0) {
    uint64_t n = limit_in(root, group, file);
    if (n < least) least = n;
  }
  uint64_t n = limit_in(root, "", file);
  return n < least ? n : least;
}

static uint64_t limit_told(char *line) {
  char *kind = strchr(line, ':'), *group = kind ? strchr(++kind, ':') : NULL;
  if (!group) return UINT64_MAX;
  *group++ = 0;
  group[strcspn(group, "\n")] = 0;
  if (!*kind) return limit_of("/sys/fs/cgroup", group, "memory.max");
  return strcmp(kind, "memory") == 0 ? limit_of("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes") : UINT64_MAX;
}

/* Bytes, as of now. */
uint64_t os_memory(void) {
  uint64_t least = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
  FILE *f = fopen("/proc/self/cgroup", "re");
  if (!f) return least;
  for (char line[LONGEST]; fgets(line, sizeof line, f);) {
    uint64_t n = limit_told(line);
    if (n < least) least = n;
  }
  fclose(f);
  return least;
}

/* Bytes that the process has now; UINT64_MAX: not known. */
uint64_t os_resident(void) {
  FILE *f = fopen("/proc/self/statm", "re");
  unsigned long size, resident;
  int n = f ? fscanf(f, "%lu %lu", &size, &resident) : 0;
  if (f) fclose(f);
  return n == 2 ? (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE) : UINT64_MAX;
}
