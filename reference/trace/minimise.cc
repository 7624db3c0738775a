#include "reference/trace/minimise.h"

#include <algorithm>
#include <utility>

#include "reference/trace/record.h"

namespace reference::trace {
namespace {

class Minimiser {
 public:
  Minimiser(const Schema& schema, Bytes trace, const Fails& fails) : schema_(schema), fails_(fails) { Take(std::move(trace)); }

  Bytes Run() {
    for (bool smaller = true; smaller;) {
      smaller = Try([&](Records& r) { std::erase_if(r, [&](const Record& each) { return IsWorld(each); }); });
      smaller |= DropRuns([&] { return records_.size(); }, [](Records& r) -> Records& { return r; });
      for (size_t i = 0; i < records_.size(); ++i) smaller |= Simplify(i);
    }
    return std::move(best_);
  }

 private:
  using Records = std::vector<Record>;

  void Take(Bytes trace) {
    best_ = std::move(trace);
    records_ = Split(schema_, best_);
  }
  const Section& SectionOf(const Record& record) const { return schema_.section(record.kind); }
  bool IsWorld(const Record& record) const { return &SectionOf(record) != &schema_.ops() && !SectionOf(record).searched; }

  // Takes the changed trace if it is another one that fails alike.
  template <class Change>
  bool Try(Change change) {
    Records candidate = records_;
    change(candidate);
    Bytes bytes = Join(schema_, candidate);
    if (bytes == best_) return false;
    std::optional<Bytes> failing = fails_(bytes);
    if (!failing || *failing == best_) return false;
    Take(*std::move(failing));
    return true;
  }

  // Tries to do without runs of the items of what `list` finds in the records, halved until single ones, the last ones first.
  template <class Size, class ListOf>
  bool DropRuns(Size size, ListOf list) {
    bool smaller = false;
    for (size_t run = std::max<size_t>(size() / 2, 1);; run /= 2) {
      for (size_t end = size(); end > 0;) {
        const size_t begin = end > run ? end - run : 0;
        smaller |= Try([&](Records& r) {
          auto& items = list(r);
          items.erase(items.begin() + static_cast<ptrdiff_t>(begin), items.begin() + static_cast<ptrdiff_t>(end));
        });
        end = std::min(begin, size());
      }
      if (run <= 1) return smaller;
    }
  }

  // Tries a number at its plainest, or by halves and ones as near as it goes. `get` and `set`: of the records, an index; none where
  // the last success took it away.
  template <class Get, class Set>
  bool Lower(uint64_t plain, Get get, Set set) {
    bool smaller = false;
    const auto to = [&](auto change) {
      const std::optional<uint64_t> now = get();
      if (!now || *now == plain) return false;
      const uint64_t next = change(*now);
      if (next == *now || !Try([&](Records& r) { set(r, next); })) return false;
      return smaller = true;
    };
    if (to([&](uint64_t) { return plain; })) return true;
    while (to([&](uint64_t n) { return n > plain ? plain + (n - plain) / 2 : plain - (plain - n) / 2; }) ||
           to([&](uint64_t n) { return n > plain ? n - 1 : n + 1; })) {
    }
    return smaller;
  }

  // Data matters byte by byte: 0, 1, then fewer and fewer bytes that are not 0.
  template <class Get, class Set>
  bool LowerBytes(Get get, Set set) {
    const auto to = [&](uint64_t next) { return get() && *get() > next && Try([&](Records& r) { set(r, next); }); };
    if (to(0) || to(1)) return true;
    bool smaller = false;
    for (unsigned byte = 0; byte < 8; ++byte) smaller |= to(get().value_or(0) & ~(uint64_t{0xff} << byte * 8));
    return smaller;
  }

  bool Simplify(size_t i) {
    if (SectionOf(records_[i]).searched) return false;
    bool smaller = false;
    const KindAt at = records_[i].kind;
    const auto same = [&] {
      return i < records_.size() && records_[i].kind.section == at.section && records_[i].kind.kind == at.kind;
    };
    ForFields(schema_.section(at), schema_.kind(at), [&](const Field& field) {
      if (!same()) return;
      if (field.list.items != nullptr) {
        smaller |= SimplifyList(i);
      } else if (field.in_bytes()) {
        const auto get = [&] { return same() ? std::optional(IndexIn(field, records_[i].bytes.data())) : std::nullopt; };
        const auto set = [&](Records& r, uint64_t index) { SetIndexIn(field, r[i].bytes.data(), index); };
        smaller |= field.values_count() == 0 ? LowerBytes(get, set) : Lower(field.usual, get, set);
      }
    });
    return smaller;
  }

  bool SimplifyList(size_t i) {
    const auto size = [&] { return i < records_.size() ? records_[i].list.size() : 0; };
    bool smaller = DropRuns(size, [i](Records& r) -> Bytes& { return r[i].list; });
    for (size_t item = 0; item < size(); ++item) {
      smaller |= Lower(0, [&] { return item < size() ? std::optional<uint64_t>(records_[i].list[item]) : std::nullopt; },
                       [&](Records& r, uint64_t index) { r[i].list[item] = static_cast<uint8_t>(index); });
    }
    return smaller;
  }

  const Schema& schema_;
  const Fails& fails_;
  Bytes best_;
  Records records_;
};

}  // namespace

Bytes Minimise(const Schema& schema, Bytes trace, const Fails& fails) { return Minimiser(schema, std::move(trace), fails).Run(); }

}  // namespace reference::trace
