#include "binding/engine_object.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "binding/convert.h"
#include "binding/job.h"
#include "core/error.h"

namespace flexplan {
namespace {

// Steps on their way to JavaScript: all that have come together are handed over in one visit to its thread.
class StepStream {
 public:
  explicit StepStream(std::shared_ptr<Cancellation> cancellation) : cancellation_(std::move(cancellation)) {}

  // On the engine's thread.
  static void push(const std::shared_ptr<StepStream>& stream, Job& job, const StepEvent& event) {
    {
      const std::lock_guard lock(stream->mutex_);
      stream->events_.push_back(event);
    }
    if (!stream->armed_.exchange(true))
      job.post([stream](Napi::Env env, Napi::Function onStep) { stream->drain(env, onStep); });
  }
  // On the JavaScript thread, after the last step: hands over what is left, and throws what the callback threw.
  void finish(Napi::Env env, const Napi::Function& onStep) {
    drain(env, onStep);
    if (error_) std::rethrow_exception(error_);
  }
  void drain(Napi::Env env, const Napi::Function& onStep) {
    armed_.store(false);
    std::vector<StepEvent> events;
    {
      const std::lock_guard lock(mutex_);
      events.swap(events_);
    }
    for (const StepEvent& event : events) {
      if (error_) return;
      const Napi::HandleScope scope(env);
      try {
        onStep.Call({toJs(env, event)});
      } catch (const Napi::Error&) {
        error_ = std::current_exception();
        cancellation_->cancel();
      }
    }
  }

 private:
  const std::shared_ptr<Cancellation> cancellation_;
  std::mutex mutex_;
  std::vector<StepEvent> events_;
  std::atomic<bool> armed_{false};
  std::exception_ptr error_;  // JavaScript thread only
};

Napi::Promise rejected(Napi::Env env) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(toJsError(env, std::current_exception()).Value());
  return deferred.Promise();
}

}  // namespace

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {InstanceMethod("open", &EngineObject::open), InstanceMethod("run", &EngineObject::run),
                      InstanceMethod("cancelSequence", &EngineObject::cancelSequence),
                      InstanceMethod("cancel", &EngineObject::cancel), InstanceMethod("close", &EngineObject::close)});
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
  try {
    if (!info[0].IsObject())
      throw Error(ErrorCode::kBadInput, "expected an engine configuration, got none; pass an object");
    engine_ = std::make_shared<Engine>(engineConfigFrom(info[0].As<Napi::Object>()));
  } catch (...) {
    throw toJsError(info.Env(), std::current_exception());
  }
}

void EngineObject::checkIdle() const {
  if (closing_) throw Error(ErrorCode::kEngine, "expected an open engine, got one that is closed; make a new one");
  if (busy_) throw Error(ErrorCode::kEngine, "expected an idle engine, got one at work; await what it is doing");
}

// The object lives while a thread works on it.
void EngineObject::enter() {
  busy_ = true;
  Ref();
}

void EngineObject::leave(Napi::Env env) {
  busy_ = false;
  Unref();
  if (closing_) startClosing(env);
}

Napi::Value EngineObject::open(const Napi::CallbackInfo& info) try {
  checkIdle();
  enter();
  return Job::start(info.Env(), {.work = [engine = engine_](Job&) -> Job::ToJs {
                                   const PerTier<int64_t> bytes = engine->open();
                                   return [bytes](Napi::Env env) -> Napi::Value {
                                     Napi::Object result = Napi::Object::New(env);
                                     result.Set("weightBytes", toJs(env, bytes));
                                     return result;
                                   };
                                 },
                                 .done = [this](Napi::Env env) { leave(env); },
                                 .callback = {}});
} catch (...) {
  return rejected(info.Env());
}

Napi::Value EngineObject::run(const Napi::CallbackInfo& info) try {
  checkIdle();
  if (!info[0].IsArray() || !info[1].IsFunction())
    throw Error(ErrorCode::kBadInput,
                "expected sequences and a function, got something else; call run(sequences, onStep)");
  auto sequences = std::make_shared<const std::vector<Sequence>>(sequencesFrom(info[0].As<Napi::Array>()));
  const auto onStep = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[1].As<Napi::Function>()));
  cancellation_ = std::make_shared<Cancellation>(sequences->size());
  const auto stream = std::make_shared<StepStream>(cancellation_);
  enter();
  const auto work = [engine = engine_, cancellation = cancellation_, sequences, stream, onStep](Job& job) -> Job::ToJs {
    const auto result = std::make_shared<RunResult>(
        engine->run(*sequences, [&](const StepEvent& event) { StepStream::push(stream, job, event); }, *cancellation));
    return [result, stream, onStep](Napi::Env env) -> Napi::Value {
      stream->finish(env, onStep->Value());
      return toJs(env, *result);
    };
  };
  return Job::start(info.Env(), {.work = work,
                                 .cancel = [cancellation = cancellation_] { cancellation->cancel(); },
                                 .done = [this](Napi::Env env) { leave(env); },
                                 .callback = info[1].As<Napi::Function>()});
} catch (...) {
  return rejected(info.Env());
}

void EngineObject::cancelSequence(const Napi::CallbackInfo& info) {
  if (cancellation_ && info[0].IsNumber()) cancellation_->cancelSequence(info[0].As<Napi::Number>().Int64Value());
}

void EngineObject::cancel(const Napi::CallbackInfo&) {
  if (cancellation_) cancellation_->cancel();
}

Napi::Value EngineObject::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  closed_.push_back(deferred);
  if (cancellation_) cancellation_->cancel();
  closing_ = true;
  if (!busy_) startClosing(env);
  return deferred.Promise();
}

// Memory is freed on a thread of its own: gigabytes take a while.
void EngineObject::startClosing(Napi::Env env) {
  if (!engine_) {
    for (const auto& deferred : std::exchange(closed_, {})) deferred.Resolve(env.Undefined());
    return;
  }
  enter();
  auto engine = std::make_shared<std::shared_ptr<Engine>>(std::exchange(engine_, nullptr));
  Job::start(env, {.work = [engine](Job&) -> Job::ToJs {
                     engine->reset();
                     return [](Napi::Env inner) { return inner.Undefined(); };
                   },
                   .done = [this](Napi::Env inner) { leave(inner); },
                   .callback = {}});
}

}  // namespace flexplan
