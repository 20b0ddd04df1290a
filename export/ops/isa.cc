#include "isa.h"

#include <stdlib.h>

#include <stdexcept>
#include <string>

namespace crisp {
namespace {

constexpr Isa kBestFirst[] = {Isa::kAvx512, Isa::kAvx2, Isa::kBaseline};

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kBaseline:
      break;
  }
  return "baseline";
}

bool is_supported(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma");
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kBaseline:
      break;
  }
#endif
  return isa == Isa::kBaseline;
}

Isa choose_isa() {
  const char* wanted = getenv("CRISP_ISA");
  for (const Isa isa : kBestFirst) {
    if (wanted != nullptr && *wanted != '\0' && name_of(isa) != std::string(wanted)) continue;
    if (is_supported(isa)) return isa;
    if (wanted != nullptr && *wanted != '\0') {
      throw std::invalid_argument(std::string("CRISP_ISA=") + wanted +
                                  ": this processor does not support it; unset CRISP_ISA");
    }
  }
  throw std::invalid_argument(std::string("CRISP_ISA=") + wanted +
                              " is unknown; expected avx512, avx2 or baseline");
}

AttendChunk kernel_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return avx512::attend_chunk;
  if (isa == Isa::kAvx2) return avx2::attend_chunk;
#else
  (void)isa;
#endif
  return baseline::attend_chunk;
}

}  // namespace crisp
