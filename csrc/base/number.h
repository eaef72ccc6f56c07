/* number.h - decimal numbers in texts: of the environment and of the kernel.
 *
 * Not strtol and scanf: headers of a newer C library turn those into functions that an older one has not, and a wheel
 * runs on both. */
#ifndef GMPRT_BASE_NUMBER_H
#define GMPRT_BASE_NUMBER_H

#include "base/base.h"

/* The number at *text, after blanks, which then points behind it; false: there is none, or it is too large. */
static inline bool number_read(const char **text, uint64_t *n) {
  const char *at = *text;
  while (*at == ' ' || *at == '\t' || *at == '\n') at++;
  if (*at < '0' || *at > '9') return false;
  for (*n = 0; *at >= '0' && *at <= '9'; at++)
    if (__builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, (uint64_t)(*at - '0'), n)) return false;
  *text = at;
  return true;
}

#endif
