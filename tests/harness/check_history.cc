// datawire-test-history FILE...: reads histories and says what is wrong in them, a line each. Exit
// code 1 if anything is, or if a file has no operation.

#include <cstdio>
#include <fstream>

#include "history_checker.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FILE...\n", argv[0]);
    return 1;
  }
  bool good = true;
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i]);
    const auto history = datawire::harness::ReadHistory(in);
    std::vector<std::string> defects;
    if (!history.ok())
      defects.push_back(history.status().message());
    else if (history->ops.empty())
      defects.emplace_back("no operation in it");
    else
      defects = CheckHistory(*history);
    for (const std::string& defect : defects) std::printf("%s: %s\n", argv[i], defect.c_str());
    if (defects.empty())
      std::printf("%s: %zu operations, %zu events: good\n", argv[i], history->ops.size(),
                  history->events.size());
    good = good && defects.empty();
  }
  return good ? 0 : 1;
}
