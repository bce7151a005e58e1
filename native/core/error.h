// Failures that a caller can act on. Nothing in this library aborts or exits.
#pragma once

#include <stdexcept>
#include <string>

namespace flexplan {

// The words of src/errors.ts that native code uses.
enum class ErrorCode { kBadInput, kOutOfMemory, kNoDiskSpace, kNoDevice, kUnsupported, kEngine };

constexpr const char* errorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBadInput: return "bad-input";
    case ErrorCode::kOutOfMemory: return "out-of-memory";
    case ErrorCode::kNoDiskSpace: return "no-disk-space";
    case ErrorCode::kNoDevice: return "no-device";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kEngine: break;
  }
  return "engine";
}

// `message` is one line: what was expected, what came, what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  ErrorCode code() const { return code_; }
  const char* codeName() const { return errorCodeName(code_); }

 private:
  ErrorCode code_;
};

}  // namespace flexplan
