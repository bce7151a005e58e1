#pragma once

namespace flexplan::cpu {

enum class Activation { kRelu, kGelu, kGeluTanh, kSilu };

}  // namespace flexplan::cpu
