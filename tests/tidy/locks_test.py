#!/usr/bin/env python3
"""What preset clang proves by datawire/mutex.h: each planted mistake with a lock is refused, the right code is not."""

import os
import shutil
import subprocess
import tempfile
import unittest

INCLUDE = os.path.join(os.environ["DATAWIRE_SOURCE"], "proto/include")
COMPILER = shutil.which("clang++-14")

FRAME = """#include <chrono>

#include "datawire/mutex.h"

using namespace datawire;

class Box {
 public:
  %s

 private:
  void Raise() DW_REQUIRES(mutex_) { ++value_; }
  void Report() DW_EXCLUDES(mutex_) {}
  Mutex mutex_;
  Condition changed_;
  int value_ DW_GUARDED_BY(mutex_) = 0;
};
"""
RIGHT = """
  void Set(int value) {
    const MutexLock lock(mutex_);
    value_ = value;
    Raise();
    changed_.notify_all();
  }
  bool Wait() {
    MutexLock lock(mutex_);
    changed_.wait(lock, [this]() DW_REQUIRES(mutex_) { return value_ > 1; });
    while (value_ < 3) changed_.wait(lock);
    lock.unlock();
    Report();
    lock.lock();
    return changed_.wait_for(lock, std::chrono::seconds(1), [this]() DW_REQUIRES(mutex_) { return value_ > 1; });
  }
"""
WRONG = {
    "reading without the lock": "int Get() { return value_; }",
    "writing without the lock": "void Set() { value_ = 1; }",
    "holding it too short": "void Set() { { MutexLock lock(mutex_); } value_ = 1; }",
    "going on after unlock": "void Set() { MutexLock lock(mutex_); lock.unlock(); value_ = 1; }",
    "locking what is held": "void Set() { MutexLock lock(mutex_); MutexLock again(mutex_); }",
    "calling what needs it": "void Set() { Raise(); }",
    "calling what must not have it": "void Set() { MutexLock lock(mutex_); Report(); }",
    "a condition that does not say what it reads":
        "void Wait() { MutexLock lock(mutex_); changed_.wait(lock, [this] { return value_ > 1; }); }",
}


@unittest.skipUnless(COMPILER, "clang++-14 is not there")
class LocksTest(unittest.TestCase):
    def compile(self, members):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "box.cc")
            with open(path, "w", encoding="utf-8") as file:
                file.write(FRAME % members)
            return subprocess.run([COMPILER, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wthread-safety", "-I", INCLUDE, path],
                                  capture_output=True, text=True, timeout=60, check=False).stderr

    def test_right_code_passes(self):
        self.assertEqual(self.compile(RIGHT), "")

    def test_each_mistake_is_refused(self):
        for name, members in WRONG.items():
            with self.subTest(name):
                self.assertIn("-Wthread-safety", self.compile(members))


if __name__ == "__main__":
    unittest.main(verbosity=2)
