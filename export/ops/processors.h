// How many processors there are for this process.
#pragma once

#include <stdint.h>

namespace crisp {

// Those that it may run on at this moment: a container, a service with several workers and taskset
// leave it fewer than the machine has. At least 1.
int64_t processors();

}  // namespace crisp
