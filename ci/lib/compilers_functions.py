"""Writes small functions round guest accesses, for lib/test/generated_accesses.h: the same number gives the same function.

Each reads, writes and compare-exchanges guest memory, through GuestMemory and the Try functions, in some control flow: loops,
switches, early returns, calls, clean-ups, exceptions, with values that live across an access, are used where it succeeded,
where it failed, or where both ways meet. Everything ends in the returned number, so that a lost value shows.
"""

import random

TYPES = ("u8", "u16", "u32", "u64", "int64_t", "Two")
EXCHANGED = ("u8", "u16", "u32", "u64")  # what a compare-exchange is tried with
ATTRIBUTES = ("", "", "NOINLINE ", "COLD ", "HOT ", "FLATTEN ")
HELPER_ATTRIBUTES = ("", "NOINLINE ", "INLINE ", "COLD ", "HOT ", "NOINLINE COLD ")
STATEMENTS = 8


class Function:
    """One function and the helpers that it calls."""

    def __init__(self, seed, number):
        self.random = random.Random(f"{seed}/{number}")
        self.name = f"F{number}"
        self.names = 0
        self.helpers = []
        self.left = STATEMENTS
        self.text = self.function(self.name, self.random.choice(ATTRIBUTES), self.random.randint(3, 8), depth=0)

    def new(self, prefix):
        self.names += 1
        return f"{prefix}{self.names}"

    def function(self, name, attributes, statements, depth):
        outer, self.values = getattr(self, "values", None), ["a", "b"]
        self.loops, loops = 0, getattr(self, "loops", 0)
        self.depth = depth
        lines = []
        for i in range(self.random.randint(1, 6)):
            value = self.new("v")
            lines.append(f"u64 {value} = {self.expression()};")
            self.values.append(value)
        lines += self.block(statements, 0)
        lines.append(f"return {' ^ '.join(f'{v} * {3 + 2 * i}' for i, v in enumerate(self.values))};")
        self.values, self.loops = outer, loops
        body = "\n  ".join(lines)
        return (f"EVERY {attributes}u64 {name}([[maybe_unused]] const Memory& m, u64 a, u64 b) {{\n"
                f"  {body}\n}}\n")

    # ------------------------------------------------------------------ expressions

    def value(self):
        return self.random.choice(self.values)

    def number(self):
        return str(self.random.choice((0, 1, 2, 3, 7, 31, 71, 100, 255, 65535, 1 << 20)))

    def expression(self):
        x, y, k = self.value(), self.value(), self.number()
        return self.random.choice((f"{x} + {k}", f"{x} * 31 + {y}", f"{x} ^ ({y} >> 3)", f"{x} - {y}", k, x,
                                   f"({x} & 1) ? {y} : {k}", f"static_cast<u32>({x}) + {y}"))

    def condition(self):
        x, y, bit = self.value(), self.value(), 1 << self.random.randint(0, 6)
        return self.random.choice((f"({x} & {bit}) != 0", f"{x} < {y}", f"{x} % 3 == 0", f"{x} == {y}",
                                   f"({x} & {bit}) != 0 && {y} % 5 != 0", f"__builtin_expect({x} % 4 == 0, 0)"))

    def hint(self):
        return self.random.choice(("", "", "", " [[unlikely]]", " [[likely]]"))

    # ------------------------------------------------------------------ statements

    def block(self, count, nesting):
        return [line for _ in range(count) for line in self.statement(nesting)]

    def braces(self, head, count, nesting):
        return [head + " {", *("  " + line for line in self.block(count, nesting + 1)), "}"]

    def statement(self, nesting):
        self.left -= 1
        if self.left < 0:
            return self.arithmetic(nesting)
        kinds = [self.read, self.try_read, self.read, self.try_read, self.write, self.try_write, self.exchange, self.try_exchange,
                 self.arithmetic, self.array]
        if nesting < 3:
            kinds += [self.branch, self.branch, self.loop, self.loop, self.switch]
        if nesting < 2:
            kinds += [self.exception, self.scope, self.closure]
        if self.depth < 2 and len(self.helpers) < 4:
            kinds += [self.call]
        kinds += [self.leave]
        return self.random.choice(kinds)(nesting)

    def small(self, nesting):
        """What stands in the branch of an access: seldom another access."""
        if nesting < 3 and self.random.random() < 0.25:
            return self.statement(nesting + 1)
        return self.random.choice((self.arithmetic, self.arithmetic, self.leave))(nesting)

    def arithmetic(self, nesting):
        return [f"{self.value()} {self.random.choice(('=', '+=', '^='))} {self.expression()};"]

    def leave(self, nesting):
        ways = [f"return {self.expression()};"]
        if self.loops > 0:
            ways += ["break;", "continue;"] * 2
        return [f"if ({self.condition()}){self.hint()} {self.random.choice(ways)}"]

    def branch(self, nesting):
        lines = self.braces(f"if ({self.condition()}){self.hint()}", self.random.randint(1, 3), nesting)
        if self.random.random() < 0.7:
            other = self.braces(" else" + self.hint(), self.random.randint(1, 2), nesting)
            lines[-1] += other[0]
            lines += other[1:]
        return lines

    def loop(self, nesting):
        i, times = self.new("i"), f"({self.value()} & 3) + {self.random.randint(0, 2)}"
        if self.random.random() < 0.3:
            times = str(self.random.randint(2, 5))
        self.loops += 1
        head = self.random.choice((f"for (u64 {i} = 0, n = {times}; {i} < n; ++{i})", f"for (u64 {i} = {times}; {i}-- > 0;)"))
        if self.random.random() < 0.2:  # as long as an access succeeds
            place, x = self.choice(), self.new("x")
            head = (f"for (u64 {i} = 0, {x} = {self.value()}; {i} < 4 && !TryRead(m.Host(HostAt({place} + {i} * 5)), {x}); "
                    f"++{i}, {self.value()} ^= {x})")
        body = self.block(self.random.randint(1, 4), nesting + 1)
        self.loops -= 1
        return [head + " {", f"  {self.value()} += {i};", *("  " + line for line in body), "}"]

    def switch(self, nesting):
        loops, self.loops = self.loops, 0  # a break in here would be the switch's
        lines = [f"switch ({self.value()} % {self.random.randint(3, 6)}) {{"]
        for case in range(self.random.randint(2, 4)):
            lines.append(f"  case {case}: {{")
            lines += ["    " + line for line in self.block(self.random.randint(1, 2), nesting + 1)]
            lines.append("  }" + self.random.choice((" break;", " break;", " [[fallthrough]];")))
        lines += ["  default:", f"    {self.arithmetic(nesting)[0]}", "}"]
        self.loops = loops
        return lines

    def scope(self, nesting):
        at_end = f"const AtEnd {self.new('g')}({self.value()}, {self.number()});"
        return ["{", "  " + at_end, *("  " + line for line in self.block(self.random.randint(1, 3), nesting + 1)), "}"]

    def exception(self, nesting):
        body = self.block(self.random.randint(1, 3), nesting + 1)
        loops, self.loops = self.loops, 0
        rest = self.block(1, nesting + 1)
        self.loops = loops
        value = self.value()
        return ["#if defined(__cpp_exceptions)", "try {", *("  " + line for line in body), f"  if ({self.condition()}) throw {value};",
                *("  " + line for line in rest), "} catch (u64 thrown) {", f"  {self.value()} += thrown * 5;", "}", "#else",
                *self.arithmetic(nesting), "#endif"]

    def closure(self, nesting):
        loops, self.loops = self.loops, 0  # no break out of a lambda
        name = self.new("f")
        body = self.block(self.random.randint(1, 2), nesting + 1)
        result = self.expression()
        self.loops = loops
        return [f"const auto {name} = [&]() -> u64 {{", *("  " + line for line in body), f"  return {result};", "};",
                f"{self.value()} += {name}();"]

    def call(self, nesting):
        name = f"{self.name}_{len(self.helpers)}"
        self.helpers.append(None)
        place, depth, attributes = len(self.helpers) - 1, self.depth, self.random.choice(HELPER_ATTRIBUTES)
        self.helpers[place] = "static " + self.function(name, attributes, self.random.randint(1, 4), depth + 1)
        self.depth = depth
        return [f"{self.value()} += {name}(m, {self.value()}, {self.expression()});"]

    def array(self, nesting):
        """Something to vectorise, beside an access."""
        name, v, w = self.new("t"), self.value(), self.value()
        return [f"u64 {name}[4] = {{{v}, {w}, {v} + 1, {w} + 1}};", f"for (u64 j = 0; j < 4; ++j) {name}[j] += {name}[(j + {v}) % 4] ^ j;",
                *self.try_read_into(nesting, f"{name}[{w} % 4]"), f"{self.value()} += {name}[0] + {name}[1] * 3 + {name}[2] * 5 + {name}[3];"]

    # ------------------------------------------------------------------ accesses

    def memory(self):
        return self.random.choice(("m.open", "m.guarded"))

    def choice(self):
        return self.random.choice((self.value(), f"{self.value()} + {self.random.randint(0, 31)}", str(self.random.randint(0, 31))))

    def read(self, nesting):
        t, r, v, w = self.random.choice(TYPES), self.new("r"), self.value(), self.value()
        known = f"const auto {r} = {self.memory()}.ReadPlain<{t}>(At({self.choice()}));"
        got = f"Number(*{r})"
        form = self.random.randint(0, 6)
        if form == 0:
            return [known, f"{v} {self.random.choice(('=', '+='))} {r}.ok() ? {got} : {self.number()};"]
        if form == 1:
            return [known, f"{v} = Number({r}.value_or(As<{t}>({w})));"]
        if form == 2:
            return [known, f"if (!{r}.ok()){self.hint()} return {v} * 3 + {w};", f"{v} = {v} * 31 + {got};"]
        if form == 3 and self.loops > 0:
            return [known, f"if (!{r}.ok()) {self.random.choice(('break', 'continue'))};", f"{v} += {got};"]
        if form == 4:
            return [known, f"{v} += {r}.ok() ? {got} : Why({r});", f"if ({r}.ok()) {w} ^= {got};"]
        return [known, f"if ({r}.ok()){self.hint()} {{", f"  {v} = {v} * 31 + {got};", *("  " + line for line in self.small(nesting)),
                "} else {", f"  {w} += {self.random.choice((f'Why({r})', '71'))};", *("  " + line for line in self.small(nesting)), "}"]

    def try_read_into(self, nesting, target):
        known = f"TryRead(m.Host(HostAt({self.choice()})), {target})"
        return self.try_forms(nesting, known)

    def try_forms(self, nesting, call):
        """A Try call and what follows on either way."""
        f, v = self.new("f"), self.value()
        form = self.random.randint(0, 4)
        if form == 0:
            return [f"if ({call}){self.hint()} {v} += {self.number()};"]
        if form == 1:
            return [f"if (const auto {f} = {call}) {{", f"  {v} += Why(*{f});", *("  " + line for line in self.small(nesting)), "}"]
        if form == 2:
            return [f"{v} += {call} ? 71 : {self.value()};"]
        if form == 3 and self.loops > 0:
            return [f"if ({call}) {self.random.choice(('break', 'continue'))};"]
        return [f"if (const auto {f} = {call}; !{f}){self.hint()} {{", *("  " + line for line in self.small(nesting)), "} else {",
                f"  {v} ^= Why(*{f});", *("  " + line for line in self.small(nesting)), "}"]

    def try_read(self, nesting):
        if self.random.random() < 0.4:  # straight into a value that is live before and after
            return self.try_read_into(nesting, self.value())
        t, x = self.random.choice(TYPES), self.new("x")
        lines = [f"{t} {x} = As<{t}>({self.value()});"]
        lines += self.try_read_into(nesting, x)
        return [*lines, f"{self.value()} += Number({x});"]

    def write(self, nesting):
        t, s = self.random.choice(TYPES), self.new("s")
        v = self.value()
        call = f"{self.memory()}.WritePlain<{t}>(At({self.choice()}), As<{t}>({self.expression()}))"
        return self.random.choice((
            [f"if (!{call}.ok()){self.hint()} {v} += 71;"],
            [f"if (!{call}.ok()) return {v};"],
            [f"{v} = {call}.ok() ? {self.value()} : {self.number()};"],
            [f"if (const auto {s} = {call}; {s}.ok()) {v} ^= 5; else {v} += Why({s});"]))

    def try_write(self, nesting):
        t = self.random.choice(TYPES)
        return self.try_forms(nesting, f"TryWrite(m.Host(HostAt({self.choice()})), As<{t}>({self.expression()}))")

    def exchange(self, nesting):
        t, r, v, w = self.random.choice(EXCHANGED), self.new("r"), self.value(), self.value()
        place = self.random.choice((f"AlignedAt<{t}>", f"AlignedAt<{t}>", "At"))
        lines = [f"const auto {r} = {self.memory()}.CompareExchange<{t}>({place}({self.choice()}), As<{t}>({w}), As<{t}>({self.expression()}));"]
        return lines + self.random.choice((
            [f"if ({r}.ok()) {{ {v} = {v} * 31 + {r}->value; {w} += {r}->swapped; }} else {{ {v} += Why({r}); }}"],
            [f"{v} += {r}.ok() ? u64{{{r}->value}} : 71;"],
            [f"if (!{r}.ok()) return {w} + 3;", f"if ({r}->swapped) {v} += 9; else {v} ^= {r}->value;"]))

    def try_exchange(self, nesting):
        t, x, done = self.random.choice(EXCHANGED), self.new("x"), self.new("d")
        lines = [f"{t} {x} = As<{t}>({self.value()});", f"bool {done} = false;"]
        if self.random.random() < 0.5:  # what is there, so that the swap is made
            lines.append(f"if (TryRead(m.Host(AlignedHostAt<{t}>({(place := self.choice())})), {x})) {self.value()} += 1;")
        else:
            place = self.choice()
        lines += self.try_forms(nesting, f"TryCompareExchange(m.Host(AlignedHostAt<{t}>({place})), {x}, As<{t}>({self.expression()}), {done})")
        return [*lines, f"{self.value()} += {x} + ({done} ? 1000 : 0);"]


# What was found elsewhere, by hand: always in the first program.
KNOWN = {"Walk": """\
EVERY u64 Walk(const Memory& m, u64 a, u64 b) {
  u64 last = 0, sum = b;
  for (u64 i = 0; i < 3; ++i) {
    if (sum & 32) {
      sum += 1;
    } else {
      auto r = m.open.ReadPlain<u64>(a % 64 + 8 * i);
      if (!r.ok()) { sum += 71; } else { last = *r; sum = sum * 31 + last; }
    }
    sum += i;
  }
  return sum + last;
}
""", "Walk2": """\
EVERY u64 Walk2(const Memory& m, u64 a, u64 b) {
  u64 v = 7, sum = b;
  for (u64 i = 0; i < 3; ++i) {
    if (sum & 32) sum += 1;
    else if (TryRead(m.Host(a % 64 + 8 * i), v)) sum += 71;
    else sum = sum * 31 + v;
    sum += i;
  }
  return sum + v;
}
"""}


def number_of(name):
    return 0 if name in KNOWN else int(name.removeprefix("F"))


def program(seed, first, count, only=None):
    """functions.inc and the program round it: `count` functions from number `first` on, or those of them that `only` names."""
    texts = dict(KNOWN) if first == 0 else {}
    for number in range(first, first + count):
        if not only or f"F{number}" in only:
            function = Function(seed, number)
            texts[function.name] = "\n".join([*reversed(function.helpers), function.text])
    texts = {name: text for name, text in texts.items() if not only or name in only}
    pairs = " ".join(f"GUESTMEM_PAIR({name})" for name in texts)
    return "\n".join(texts.values()), (f'#define GUESTMEM_FUNCTIONS "functions.inc"\n#define GUESTMEM_PAIRS {pairs}\n'
                                       f'#include "generated_accesses.h"\n')
