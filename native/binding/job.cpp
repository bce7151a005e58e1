#include "binding/job.h"

#include <new>
#include <utility>

#include "core/error.h"

namespace flexplan {

Napi::Error toJsError(Napi::Env env, std::exception_ptr error) {
  std::string code = errorCodeName(ErrorCode::kEngine);
  std::string message;
  try {
    std::rethrow_exception(error);
  } catch (const Napi::Error& fromJs) {
    return fromJs;
  } catch (const Error& failure) {
    code = failure.codeName();
    message = failure.what();
  } catch (const std::bad_alloc&) {
    code = errorCodeName(ErrorCode::kOutOfMemory);
    message = "expected more memory, the system refused; free memory or plan with less";
  } catch (const std::exception& failure) {
    message = failure.what();
  }
  Napi::Error result = Napi::Error::New(env, message);
  result.Set("code", Napi::String::New(env, code));
  return result;
}

Napi::Promise Job::start(Napi::Env env, Options options) {
  // Owned by its thread from here on: settle() deletes it.
  Job* const job = new Job(env, std::move(options));
  const Napi::Promise promise = job->deferred_.Promise();
  napi_add_env_cleanup_hook(env, onEnvironmentCleanup, job);
  job->thread_ = std::thread([job] { job->runThread(); });
  return promise;
}

Job::Job(Napi::Env env, Options options)
    : work_(std::move(options.work)),
      cancel_(std::move(options.cancel)),
      done_(std::move(options.done)),
      env_(env),
      deferred_(Napi::Promise::Deferred::New(env)) {
  const Napi::Function callback =
      options.callback.IsEmpty() ? Napi::Function::New(env, [](const Napi::CallbackInfo&) {}) : options.callback;
  toJsThread_ = Napi::ThreadSafeFunction::New(env, callback, "flexplan", 0, 1);
}

void Job::onEnvironmentCleanup(void* data) {
  Job* const job = static_cast<Job*>(data);
  job->cancel_();
  job->thread_.join();
}

void Job::runThread() {
  try {
    result_ = work_(*this);
  } catch (...) {
    error_ = std::current_exception();
  }
  // The handle is copied because settle() may delete the job before Release() returns here.
  Napi::ThreadSafeFunction toJsThread = toJsThread_;
  toJsThread.NonBlockingCall([this](Napi::Env env, Napi::Function) { settle(env); });
  toJsThread.Release();
}

void Job::settle(Napi::Env env) {
  thread_.join();
  napi_remove_env_cleanup_hook(env_, onEnvironmentCleanup, this);
  const Napi::HandleScope scope(env);
  done_(env);
  try {
    if (error_) std::rethrow_exception(error_);
    deferred_.Resolve(result_(env));
  } catch (...) {
    deferred_.Reject(toJsError(env, std::current_exception()).Value());
  }
  delete this;
}

void Job::post(std::function<void(Napi::Env, Napi::Function)> call) { toJsThread_.NonBlockingCall(std::move(call)); }

}  // namespace flexplan
