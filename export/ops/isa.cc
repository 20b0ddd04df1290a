#include "isa.h"

#include <stdlib.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <iterator>
#include <stdexcept>
#include <string>

namespace crisp {
namespace {

// Tiles need the leave of the operating system, once for all threads of the process.
bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM, of Linux 5.16
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  static const bool may = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return may;
#else
  return false;
#endif
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return "amx";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvxVnni:
      return "avxvnni";
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
    case Isa::kAmx:
      return is_supported(Isa::kAvx512Bf16) && __builtin_cpu_supports("amx-tile") &&
             __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") &&
             may_use_tiles();
    case Isa::kAvx512Bf16:
      return is_supported(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512Vnni:
      return is_supported(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma");
    case Isa::kAvxVnni:
      return is_supported(Isa::kAvx2) && __builtin_cpu_supports("avxvnni");
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
  std::string names;
  for (size_t i = std::size(kEveryIsa); i-- > 0;) {
    const Isa isa = kEveryIsa[i];
    names += std::string(names.empty() ? "" : ", ") + name_of(isa);
    if (wanted != nullptr && *wanted != '\0' && name_of(isa) != std::string(wanted)) continue;
    if (is_supported(isa)) return isa;
    if (wanted != nullptr && *wanted != '\0') {
      throw std::invalid_argument(std::string("CRISP_ISA=") + wanted +
                                  ": this processor does not support it; unset CRISP_ISA");
    }
  }
  throw std::invalid_argument(std::string("CRISP_ISA=") + wanted + " is unknown; expected one of " +
                              names);
}

AttendChunk kernel_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAmx) return amx::attend_chunk;
  if (isa == Isa::kAvx512Bf16) return avx512bf16::attend_chunk;
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Vnni) return avx512::attend_chunk;
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return avx2::attend_chunk;
#else
  (void)isa;
#endif
  return baseline::attend_chunk;
}

const RowKernel& row_kernel_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAmx) return amx::kRowKernel;
  if (isa == Isa::kAvx512Vnni || isa == Isa::kAvx512Bf16) return avx512vnni::kRowKernel;
  if (isa == Isa::kAvx512) return avx512::kRowKernel;
  if (isa == Isa::kAvxVnni) return avxvnni::kRowKernel;
  if (isa == Isa::kAvx2) return avx2::kRowKernel;
#else
  (void)isa;
#endif
  return baseline::kRowKernel;
}

}  // namespace crisp
