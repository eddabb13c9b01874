// Look-ups alone, without links: `look ADDRESS` prints the URL of each endpoint.

#include <datawire/resolver.h>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return std::fputs("usage: look ADDRESS\n", stderr), 1;
  const auto address = datawire::Address::Parse(argv[1]);
  auto resolver = datawire::Resolver::Open({});
  if (!address.ok() || !resolver.ok()) return std::fputs("look: refused\n", stderr), 1;
  const auto answer = (*resolver)->Resolve(*address, {.deadline = std::chrono::seconds(60)});
  for (const auto& endpoint : answer->endpoints) std::printf("%s\n", endpoint.url.text().c_str());
  return answer->endpoints.empty() ? 2 : 0;
}
