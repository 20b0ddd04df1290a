// The row operators and PruneTokens: matrix products by cuBLAS, and our programs around them.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "launch.h"
#include "operators.h"
#include "prune_program.h"
#include "row_programs.h"

namespace crisp {
namespace cuda {
namespace {

size_t size_of(Precision precision) { return precision == Precision::kHalf ? 2 : 4; }

template <template <class> class Program, class Arguments>
void launch_as(Precision precision, const Device& device, int64_t units, size_t shared_bytes,
               const Arguments& arguments) {
  if (precision == Precision::kHalf) {
    return launch<Program<Half>>(device, units, 1, shared_bytes, arguments);
  }
  launch<Program<float>>(device, units, 1, shared_bytes, arguments);
}

void product(const Device& device, Precision precision, const Linear& layer, const void* x,
             int64_t rows, void* y) {
  multiply(device, precision, x, layer.weight, y, rows, layer.inputs, layer.outputs);
}

void scale_and_bias(const Device& device, Precision precision, const Linear& layer, int64_t rows,
                    bool gelu, void* y) {
  ScaleBiasArguments arguments{};
  arguments.x = y;
  arguments.scale = layer.scale;
  arguments.bias = layer.bias;
  arguments.elements = rows * layer.outputs;
  arguments.width = static_cast<int32_t>(layer.outputs);
  arguments.gelu = gelu;
  launch_as<ScaleBias>(precision, device,
                       divide_up(arguments.elements, ScaleBias<float>::kElementsOfBlock), 0,
                       arguments);
}

NormWeightsOnDevice weights_of(const Norm& norm) { return {norm.gamma, norm.beta, norm.epsilon}; }

void add_and_norm(const Device& device, Precision precision, const Linear& layer, const Norm& norm,
                  const void* x, const void* residual, int64_t rows, void* y) {
  AddAndNormArguments arguments{};
  arguments.x = x;
  arguments.scale = layer.scale;
  arguments.bias = layer.bias;
  arguments.residual = residual;
  arguments.y = y;
  arguments.norm = weights_of(norm);
  arguments.rows = rows;
  arguments.width = static_cast<int32_t>(layer.outputs);
  launch_as<AddAndNorm>(precision, device, divide_up(rows, kRowsOfBlock),
                        norm_shared_bytes(layer.outputs), arguments);
}

}  // namespace

void linear(const Device& device, Precision precision, const Linear& layer, const void* x,
            int64_t rows, void* y) {
  if (rows == 0) return;
  product(device, precision, layer, x, rows, y);
  scale_and_bias(device, precision, layer, rows, false, y);
}

void post_attention(const Device& device, const PostAttention& call) {
  if (call.rows == 0) return;
  const auto scratch = [&](int64_t width) {
    return device.allocate(static_cast<size_t>(call.rows * width) * size_of(call.precision));
  };
  void* const narrow = scratch(call.out.outputs);
  void* const wide = scratch(call.inner.outputs);
  void* const attended = scratch(call.out.outputs);
  product(device, call.precision, call.out, call.context, call.rows, narrow);
  add_and_norm(device, call.precision, call.out, call.attended, narrow, call.hidden, call.rows,
               attended);
  product(device, call.precision, call.inner, attended, call.rows, wide);
  scale_and_bias(device, call.precision, call.inner, call.rows, true, wide);
  product(device, call.precision, call.outer, wide, call.rows, narrow);
  add_and_norm(device, call.precision, call.outer, call.output_norm, narrow, attended, call.rows,
               call.output);
  if (call.qkv != nullptr) {
    linear(device, call.precision, *call.qkv, call.output, call.rows, call.qkv_output);
  }
}

void embed(const Device& device, const Embedding& call) {
  EmbedArguments arguments{};
  arguments.input_ids = call.input_ids;
  arguments.words = call.words;
  arguments.word_scale = call.word_scale;
  arguments.positions = call.positions;
  arguments.position_scale = call.position_scale;
  arguments.hidden = call.hidden;
  arguments.norm = weights_of(call.norm);
  arguments.word_count = call.word_count;
  arguments.width = static_cast<int32_t>(call.width);
  std::vector<Units<Segment>> sequences;
  for (int64_t i = 0; i < call.batch; ++i) {
    Segment segment{};
    segment.first_token = call.cu_seqlens[i];
    segment.length = call.cu_seqlens[i + 1] - segment.first_token;
    if (segment.length == 0) continue;
    if (segment.length > call.position_count) {
      throw std::invalid_argument("a sequence has " + std::to_string(segment.length) +
                                  " tokens, and there are positions for " +
                                  std::to_string(call.position_count));
    }
    sequences.push_back({segment, divide_up(segment.length, kRowsOfBlock)});
  }
  const auto shared_bytes = [&] { return norm_shared_bytes(call.width); };
  if (call.precision == Precision::kHalf) {
    return launch_all<Embed<Half>>(device, sequences, 1, arguments, shared_bytes);
  }
  launch_all<Embed<float>>(device, sequences, 1, arguments, shared_bytes);
}

int64_t count_kept(const PruneRule& rule, const int32_t* cu_seqlens,
                   const int32_t* original_cu_seqlens, int64_t batch) {
  int64_t count = 0;
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t live = cu_seqlens[i + 1] - cu_seqlens[i];
    count += std::min(live, kept_tokens(rule, original_cu_seqlens[i + 1] - original_cu_seqlens[i]));
  }
  return count;
}

void prune_tokens(const Device& device, const PruneRule& rule, const float* received,
                  const int32_t* cu_seqlens, const int32_t* original_cu_seqlens, int64_t batch,
                  int64_t* kept, int32_t* kept_cu_seqlens) {
  PruneArguments arguments{};
  arguments.received = received;
  arguments.kept = kept;
  arguments.kept_cu_seqlens = kept_cu_seqlens;
  std::vector<Units<PrunedSegment>> sequences;
  int32_t longest = 0;
  int32_t kept_so_far = 0;
  for (int64_t i = 0; i < batch; ++i) {
    PrunedSegment segment{};
    segment.sequence = static_cast<int32_t>(i);
    segment.first_token = cu_seqlens[i];
    segment.live = cu_seqlens[i + 1] - segment.first_token;
    segment.first_kept = kept_so_far;
    segment.kept =
        static_cast<int32_t>(count_kept(rule, cu_seqlens + i, original_cu_seqlens + i, 1));
    kept_so_far += segment.kept;
    longest = std::max(longest, segment.live);
    sequences.push_back({segment, 1});
  }
  fill_zero(device, kept_cu_seqlens, sizeof(int32_t));
  launch_all<Prune>(device, sequences, 1, arguments, [&] { return Prune::shared_bytes(longest); });
}

}  // namespace cuda
}  // namespace crisp
