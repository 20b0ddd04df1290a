// Sessions that hold equal weights, such as two variants of one model, keep them once.
#pragma once

#include <memory>

#include "rows.h"

namespace crisp {

// `layer`, or the one with the same contents that this process has already, as long as somebody
// holds it. Contents are compared byte by byte. May be called from any thread.
std::shared_ptr<const PackedLinear> shared(std::unique_ptr<PackedLinear> layer);

}  // namespace crisp
