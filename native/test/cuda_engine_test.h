#pragma once

#include "test/check.h"

namespace flexplan::test {

// The whole engine on the fake machine: results, failures, what is taken and when.
void testCudaEngine(Checks& check, int numPolicies);

}  // namespace flexplan::test
