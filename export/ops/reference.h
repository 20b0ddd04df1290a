// The scalar reference of crisp::SparseAttention: the plain loops that the kernel is tested
// against.
#pragma once

#include "operands.h"

namespace crisp {

// What sparse_attention() computes, one row after the other, in the order of the definition.
void reference_attention(const Operands& operands);

}  // namespace crisp
