/* above.c - what lies above the host: see above.h. */
#include "py/host/above.h"

struct interposed interposed;
struct above above;
