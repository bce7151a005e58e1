#include "test/check.h"
int main() { return 0; }
