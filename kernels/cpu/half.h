// Storage types for the two 16-bit floats: exact on the way in, rounded to nearest even on the way out. Written in
// integer operations and selections, so that every compiler and every machine gives the same bits and loops over them
// become vector code.
#pragma once

#include <bit>
#include <cstdint>

namespace pkpo::cpu {
namespace {

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t b = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
    const uint32_t nan = (b >> 16) | 0x40u;
    bits = static_cast<uint16_t>((b & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

struct Float16 {
  uint16_t bits;

  Float16() = default;
  explicit Float16(float value) {
    const uint32_t b = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (b >> 16) & 0x8000u;
    const uint32_t magnitude = b & 0x7fffffffu;
    // Normal: rebias the exponent from 127 to 15, round 13 bits away.
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Subnormal: adding 0.5 puts the unit in the last place of the sum at 2^-24, where the rounding must be.
    const uint32_t small = magnitude < 0x38800000u ? magnitude : 0u;
    const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(small) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t infinite = magnitude >= 0x477ff000u ? 0x7c00u : finite;  // 65520 and above round to infinity
    bits = static_cast<uint16_t>(sign | (magnitude > 0x7f800000u ? 0x7e00u : infinite));
  }
  explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    const uint32_t normal = (magnitude << 13) + 0x38000000u;
    const float small = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;  // subnormals and zero, exact
    const uint32_t finite = magnitude < 0x0400u ? std::bit_cast<uint32_t>(small) : normal;
    return std::bit_cast<float>(sign | (magnitude >= 0x7c00u ? 0x7f800000u | (magnitude << 13) : finite));
  }
};

}  // namespace
}  // namespace pkpo::cpu
