/* number_test.c - decimal numbers in texts. */
#include "test.h"

#include "base/number.h"

static bool reads(const char *text, uint64_t want, const char *rest) {
  uint64_t n;
  return number_read(&text, &n) && n == want && strcmp(text, rest) == 0;
}

static bool refuses(const char *text) {
  const char *at = text;
  uint64_t n;
  return !number_read(&at, &n) && at == text;
}

TEST(numbers_are_read) {
  CHECK(reads("0", 0, ""));
  CHECK(reads(" \t\n42", 42, ""));
  CHECK(reads("200000 100000\n", 200000, " 100000\n"));
  CHECK(reads("007x", 7, "x"));
  CHECK(reads("18446744073709551615", UINT64_MAX, ""));
}

TEST(what_is_none_is_refused_and_not_passed_over) {
  CHECK(refuses(""));
  CHECK(refuses("  "));
  CHECK(refuses("max 100000"));
  CHECK(refuses("-1"));
  CHECK(refuses("+1"));
  CHECK(refuses("18446744073709551616"));
  CHECK(refuses("99999999999999999999999"));
}
