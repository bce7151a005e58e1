#include "tier/clock.h"

#include <sys/prctl.h>
#include <time.h>

#include <cmath>

namespace flexplan {
namespace {

constexpr double kSpinSeconds = 20e-6;

// The kernel may delay a wake-up by the thread's timer slack, 50 microseconds unless told otherwise.
void dropTimerSlack() {
  thread_local const int result = prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  static_cast<void>(result);
}

}  // namespace

double nowSeconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void sleepUntil(double seconds, bool precise) {
  const double wake = precise ? seconds - kSpinSeconds : seconds;
  if (wake > nowSeconds()) {
    dropTimerSlack();
    const double whole = std::floor(wake);
    const timespec until = {static_cast<time_t>(whole), static_cast<long>((wake - whole) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) != 0) {
    }
  }
  while (precise && nowSeconds() < seconds) {
  }
}

}  // namespace flexplan
