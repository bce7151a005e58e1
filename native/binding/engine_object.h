// The JavaScript class `Engine`: one object, one engine, one thing at a time.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "engine/engine.h"

namespace flexplan {

class EngineObject final : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit EngineObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  void cancelSequence(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  void checkIdle() const;
  void enter();
  void leave(Napi::Env env);
  void startClosing(Napi::Env env);

  // Shared with the thread that works on it.
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<Cancellation> cancellation_;  // of the run in flight, or the last one
  bool busy_ = false;
  bool closing_ = false;
  std::vector<Napi::Promise::Deferred> closed_;  // waiting for close
};

}  // namespace flexplan
