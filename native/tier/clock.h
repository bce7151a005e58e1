// Monotonic time, and waiting for a moment of it more precisely than the scheduler's default.
#pragma once

namespace flexplan {

// Seconds of the monotonic clock.
double nowSeconds();

// Sleeps until the monotonic clock shows `seconds`. `precise` spends the last microseconds awake, to be late by less
// than one.
void sleepUntil(double seconds, bool precise);

}  // namespace flexplan
