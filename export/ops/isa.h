// The instruction sets that the kernel is compiled for, and the choice between them at run time.
#pragma once

#include "kernel.h"
#include "row_kernel.h"

namespace crisp {

enum class Isa { kBaseline, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmx };

inline constexpr Isa kEveryIsa[] = {Isa::kBaseline,   Isa::kAvx2,       Isa::kAvxVnni, Isa::kAvx512,
                                    Isa::kAvx512Vnni, Isa::kAvx512Bf16, Isa::kAmx};  // fastest last

const char* name_of(Isa isa);

// Whether this library has a kernel for `isa` and this processor can run it.
bool is_supported(Isa isa);

// The fastest supported one, or the one that the environment variable CRISP_ISA names. Throws
// std::invalid_argument where that name is unknown or not supported.
Isa choose_isa();

// The kernels for a supported `isa`. VNNI multiplies bytes: attention is the same without; and
// AVX512-BF16, which is VNNI too, bfloat16: linears are the same without.
AttendChunk kernel_for(Isa isa);
const RowKernel& row_kernel_for(Isa isa);

}  // namespace crisp
