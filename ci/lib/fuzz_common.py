"""What the scripts round the fuzz targets share: where things are, the targets' options, tables."""

import configparser
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ("asan", "lsan", "msan", "tsan", "ubsan")


def options_file(path):
    """The sections of a .options file as dictionaries; none if there is no such file."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return {name: dict(parser[name]) for name in parser.sections()}


def options_of(build, target):
    """Made by the build beside the program, from fuzz/target.options.in."""
    return build / "fuzz" / f"{target}.options"


def merged(value, options):
    """A sanitizer's variable with `options` laid over what it says already."""
    # a colon separates options, but not inside quotes
    before = re.findall(r"(\w+)=('[^']*'|\"[^\"]*\"|[^:]*)", value)
    return ":".join(f"{name}={said}" for name, said in {**dict(before), **options}.items())


def laid_over(path, environment):
    """`environment` with the sections of a .options file laid over what its variables say already, as ClusterFuzz does."""
    environment = dict(environment)
    sections = options_file(path)
    for sanitizer in SANITIZERS:
        if sanitizer in sections:
            variable = sanitizer.upper() + "_OPTIONS"
            environment[variable] = merged(environment.get(variable, ""), sections[sanitizer])
    environment.update(sections.get("env", {}))
    return environment


def merged_environment(build, target):
    return laid_over(options_of(build, target), os.environ)


def fuzzer_arguments(build, target):
    return [f"-{name}={value}" for name, value in options_file(options_of(build, target)).get("libfuzzer", {}).items()]


def input_folders(build, target):
    """Where a run starts from: the checked-in inputs and the encoded seeds."""
    return [folder for folder in (ROOT / "corpus" / target, build / "seeds") if folder.is_dir()]


def dictionary(target):
    """The target's dictionary as a list of one path, or of none."""
    path = ROOT / "fuzz" / f"{target}.dict"
    return [path] if path.is_file() else []


def shown(path):
    return os.path.relpath(path)


def table(rows, right):
    """Aligned columns; `right` holds the indices of the numeric ones."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths)))
        print("  ".join(cells).rstrip())
