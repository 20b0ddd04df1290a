// Small parts that the block programs are made of: halves, fragments of the tensor cores, tables.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cuda/multiply.h"
#include "cuda/segments.h"
#include "cuda/visible.h"

namespace crisp {
namespace cuda {
namespace {

TEST_CASE("cuda: every half becomes a float and comes back") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half{static_cast<uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) {
      CHECK(std::isnan(to_float(half_from(value))));
    } else {
      REQUIRE(half_from(value).bits == bits);
      const int exponent = static_cast<int>(bits >> 10 & 31);
      const int fraction = static_cast<int>(bits & 1023);
      const float magnitude =
          exponent == 31 ? std::numeric_limits<float>::infinity()
                         : std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction),
                                      (exponent ? exponent : 1) - 25);
      REQUIRE(value == (bits & 0x8000u ? -magnitude : magnitude));
    }
  }
}

TEST_CASE("cuda: floats round to the nearest half, ties to the even one") {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float low = to_float(Half{static_cast<uint16_t>(bits)});
    // The next half, which after the largest would be 2^16: from there on it is infinity.
    const float high = bits == 0x7bff ? 65536.0f : to_float(Half{static_cast<uint16_t>(bits + 1)});
    const float middle = (low + high) / 2;
    REQUIRE(half_from(std::nextafterf(middle, 0)).bits == bits);
    REQUIRE(half_from(std::nextafterf(middle, 1e9f)).bits == bits + 1);
    REQUIRE(half_from(middle).bits == bits + (bits & 1));
  }
}

TEST_CASE("cuda: the order of sortable bits is that of floats") {
  std::mt19937 random(1);
  std::vector<float> values = {0.0f,
                               -0.0f,
                               1e-45f,
                               -1e-45f,
                               3e38f,
                               -3e38f,
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity()};
  std::normal_distribution<float> normal;
  for (int i = 0; i < 200; ++i) values.push_back(normal(random));
  for (const float a : values) {
    CHECK(from_sortable(sortable(a)) == a);
    for (const float b : values) {
      if (a < b) REQUIRE(sortable(a) < sortable(b));
    }
  }
}

// mma.sync.m16n8k16 as the PTX ISA defines it: which element of A, B and C each lane's registers
// hold, written down from its tables and not from multiply.h.
struct Mma {
  float a[16][16] = {}, b[16][8] = {}, c[16][8] = {};

  void put_a(int lane, int index, float value) {
    const int group = lane >> 2, member = lane & 3;
    a[index == 0 || index == 1 || index == 4 || index == 5 ? group : group + 8]
     [member * 2 + (index & 1) + (index < 4 ? 0 : 8)] = value;
  }
  void put_b(int lane, int index, float value) {
    b[(lane & 3) * 2 + (index & 1) + (index < 2 ? 0 : 8)][lane >> 2] = value;
  }
  void run() {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        for (int k = 0; k < 16; ++k) c[i][j] += a[i][k] * b[k][j];
      }
    }
  }
  float get_c(int lane, int index) const {
    return c[(lane >> 2) + (index < 2 ? 0 : 8)][(lane & 3) * 2 + (index & 1)];
  }
};

TEST_CASE("cuda: lanes load the fragments that the tensor cores expect") {
  std::mt19937 random(2);
  std::uniform_int_distribution<int> integer(-4, 4);
  Half a[16][16], b[8][16];  // as multiply_add takes them: both along the depth
  for (auto& row : a) {
    for (Half& value : row) value = half_from(static_cast<float>(integer(random)));
  }
  for (auto& row : b) {
    for (Half& value : row) value = half_from(static_cast<float>(integer(random)));
  }
  Mma mma;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 8; ++i) {  // register i / 2, its lower or upper half
      mma.put_a(lane, i,
                to_float(a[fragment_a_row(lane, i / 2)][fragment_depth(lane, i / 4) + i % 2]));
    }
    for (int i = 0; i < 4; ++i) {
      mma.put_b(lane, i, to_float(b[fragment_b_row(lane)][fragment_depth(lane, i / 2) + i % 2]));
    }
  }
  mma.run();
  for (int lane = 0; lane < kWarp; ++lane) {
    float sums[1][4] = {};
    multiply_add<1, 16>(lane, &a[0][0], 16, 15, &b[0][0], 16, sums);
    for (int element = 0; element < 4; ++element) {
      CHECK(sums[0][element] == mma.get_c(lane, element));
      float expected = 0;
      for (int k = 0; k < 16; ++k) {
        expected +=
            to_float(a[lane_row(lane, element)][k]) * to_float(b[lane_column(lane, element)][k]);
      }
      CHECK(sums[0][element] == expected);
    }
  }
}

TEST_CASE("cuda: a block finds its entry") {
  Table<Segment> table{};
  std::vector<int> owner;
  for (const int units : {1, 3, 1, 1, 7}) {
    table.entries[table.count].first_unit = static_cast<int32_t>(owner.size());
    owner.insert(owner.end(), static_cast<size_t>(units), table.count++);
  }
  for (size_t unit = 0; unit < owner.size(); ++unit) {
    CHECK(&table.of(static_cast<int>(unit)) == &table.entries[owner[unit]]);
  }
}

TEST_CASE("cuda: pairs are visible where pattern.h says so, and tiles where a pair is") {
  std::vector<Pattern> patterns;
  for (const int64_t window : {1, 5, 33}) {
    for (const int64_t globals : {0, 2})
      patterns.push_back({PatternKind::kBand, 1, 1, 0, window, 0, globals});
  }
  for (const int64_t size : {1, 7, 64}) {
    for (const int64_t globals : {0, 2})
      patterns.push_back({PatternKind::kBlock, 1, 1, 0, 0, size, globals});
  }
  patterns.push_back({});
  const int length = 50;
  for (const Pattern& pattern : patterns) {
    Visible rules{};
    rules.kind = pattern.kind;
    rules.reach = static_cast<int32_t>(pattern.window / 2);
    rules.size = static_cast<int32_t>(pattern.size);
    rules.globals = static_cast<int32_t>(pattern.globals);
    const VisibleHere visible(rules, 0, 0, length);
    std::vector<std::vector<bool>> seen;
    for (int query = 0; query < length; ++query) {
      const VisibleKeys keys = visible_keys(pattern, query, length);
      seen.emplace_back();
      for (int key = 0; key < length; ++key) {
        seen.back().push_back(key < keys.globals_end || (key >= keys.begin && key < keys.end));
        REQUIRE(visible.pair(query, key) == seen.back().back());
      }
      CHECK_FALSE(visible.pair(query, length));
      CHECK_FALSE(visible.pair(length, query));
    }
    for (int query = 0; query < length; query += 6) {
      for (int key = 0; key < length; key += 5) {
        bool any = false;
        for (int q = query; q < std::min(query + 6, length); ++q) {
          for (int k = key; k < std::min(key + 5, length); ++k) any |= seen[q][k];
        }
        REQUIRE(visible.any(query, std::min(query + 6, length), key, std::min(key + 5, length)) ==
                any);
      }
    }
  }
}

}  // namespace
}  // namespace cuda
}  // namespace crisp
