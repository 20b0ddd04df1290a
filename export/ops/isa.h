// The instruction sets that the kernel is compiled for, and the choice between them at run time.
#pragma once

#include "kernel.h"

namespace crisp {

enum class Isa { kBaseline, kAvx2, kAvx512 };

const char* name_of(Isa isa);

// Whether this library has a kernel for `isa` and this processor can run it.
bool is_supported(Isa isa);

// The fastest supported one, or the one that the environment variable CRISP_ISA names (avx512,
// avx2 or baseline). Throws std::invalid_argument where that name is unknown or not supported.
Isa choose_isa();

// The kernel for a supported `isa`.
AttendChunk kernel_for(Isa isa);

}  // namespace crisp
