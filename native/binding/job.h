// Work off the JavaScript thread, seen from JavaScript as a Promise.
#pragma once

#include <napi.h>

#include <exception>
#include <functional>
#include <thread>

namespace flexplan {

// A JavaScript Error with `code` and message.
Napi::Error toJsError(Napi::Env env, std::exception_ptr error);

// One piece of work on a thread of its own. Deletes itself when it is done. When the environment goes away first, the
// work is cancelled and waited for, and nothing of JavaScript is touched any more.
class Job {
 public:
  using ToJs = std::function<Napi::Value(Napi::Env)>;
  struct Options {
    // Runs on the thread; returns what makes the result on the JavaScript thread. Exceptions reject the promise.
    std::function<ToJs(Job&)> work;
    // Makes the work end soon; called when the environment goes away.
    std::function<void()> cancel = [] {};
    // Runs on the JavaScript thread before the promise settles.
    std::function<void(Napi::Env)> done = [](Napi::Env) {};
    // Called by post(); may be empty.
    Napi::Function callback;
  };
  static Napi::Promise start(Napi::Env env, Options options);

  // Runs `call` on the JavaScript thread, with the callback of the options. From the job's thread.
  void post(std::function<void(Napi::Env, Napi::Function)> call);

 private:
  Job(Napi::Env env, Options options);
  static void onEnvironmentCleanup(void* job);
  void runThread();
  void settle(Napi::Env env);

  std::function<ToJs(Job&)> work_;
  std::function<void()> cancel_;
  std::function<void(Napi::Env)> done_;
  const napi_env env_;
  Napi::Promise::Deferred deferred_;
  Napi::ThreadSafeFunction toJsThread_;
  std::thread thread_;
  ToJs result_;
  std::exception_ptr error_;
};

}  // namespace flexplan
