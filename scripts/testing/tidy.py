"""The rules of tidy.sh that look into files. Reads `swift package dump-package` from standard input.

With --fix it wraps long comment lines and checks nothing."""

import json
import os
import re
import subprocess
import sys

# Longer than the limit because they are tables, or one state machine that would be harder to read in parts.
LONG_FILES: set[str] = set()
FILE_LINES, FUNCTION_LINES, LINE_COLUMNS, README_LINES = 500, 60, 120, 40

# Modules that every target may import; tests may use Testing besides.
SYSTEM_MODULES = {"Glibc", "Synchronization", "Swift"}

# (why, pattern, where it is allowed). Patterns are matched against code without comments and string literals.
BANNED = [
    ("a trap that outside input may reach", r"\btry!|\bas!|\bfatalError\b", ()),
    ("public: modules share by package access", r"\b(public|open) (import|final|class|struct|enum|func|var|let|init|protocol|actor|extension)\b", ()),
    ("Swift concurrency: blocking work runs on threads of our own", r"\b(async|await|Task|actor)\b(?!:)", ()),
    ("the clock: TimeSource comes in as an argument", r"\b(ContinuousClock|SuspendingClock)\b", ("Sources/KedgeCore/",)),
    ("randomness: RandomSource comes in as an argument",
     r"\bSystemRandomNumberGenerator\b|\.random\(in|\.randomElement\(\)|\.shuffled\(\)", ("Sources/KedgeCore/",)),
    ("standard output: results are rendered by KedgeCommand", r"(?<![.\w])print\(", ("Sources/KedgeCommand/", "Sources/kedge/")),
    ("the environment and arguments: read once, by KedgeCommand", r"(?<![.\w])(getenv|environ)\b|\bCommandLine\b",
     ("Sources/KedgeCommand/", "Sources/kedge/", "Sources/KedgeCore/")),
    ("the end of the process: only Main exits", r"(?<![.\w])(?<!case )_?exit\(", ("Sources/kedge/", "Sources/KedgeCore/")),
]
# C functions that only KedgeCore (and the thin owners of C handles) call; looked for where Glibc is imported, since only
# there they can be meant.
SYSTEM_CALLS = (
    r"(?:Glibc\.|(?<![.\w]))(time|clock_gettime|gettimeofday|sleep|usleep|nanosleep|rand|random|getrandom|"
    r"open|openat|creat|fopen|close|unlink|unlinkat|rename|renameat|link|symlink|mkdir|rmdir|fsync|fdatasync|"
    r"stat|fstat|lstat|opendir|readdir|fork|system|posix_spawn)\("
)
FORBIDDEN_FOLDERS = {"Utils", "Common", "Misc", "New", "Deprecated"}

breaches = 0


def breach(path, line, text):
    global breaches
    breaches += 1
    print(f"{path}:{line}: {text}" if line else f"{path}: {text}")


def files(pattern):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", pattern], capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if os.path.isfile(path)]


def without_comments_and_strings(source):
    """The source with comments and the contents of string literals blanked, line for line.

    Interpolations are blanked with their string: no rule needs to see them, and braces in them would disturb the count."""
    out, index, depth = [], 0, 0
    token = re.compile(r'//[^\n]*|/\*|"""|#*"|[^/"#]+|.', re.S)

    def string_end(start, quote, hashes):
        escape = "\\" + hashes
        position = start
        while position < len(source):
            if source.startswith(quote + hashes, position):
                return position + len(quote + hashes)
            if source.startswith(escape, position):
                position += len(escape)
                if source.startswith("(", position):
                    nesting = 0
                    while position < len(source):
                        if source[position] == "(":
                            nesting += 1
                        elif source[position] == ")":
                            nesting -= 1
                            if nesting == 0:
                                break
                        elif source[position] == '"':
                            position = string_end(position + 1, '"', "") - 1
                        position += 1
            position += 1
        return position

    while index < len(source):
        match = token.match(source, index)
        text = match.group()
        if text.startswith("//"):
            out.append(" " * len(text))
            index = match.end()
        elif text == "/*":
            end = source.find("*/", index)
            end = len(source) if end < 0 else end + 2
            out.append(re.sub(r"[^\n]", " ", source[index:end]))
            index = end
        elif text.endswith('"'):
            hashes = text.rstrip('"')
            end = string_end(match.end(), text.lstrip("#"), hashes)
            out.append('""' + re.sub(r"[^\n]", " ", source[index + 2:end]))
            index = end
        else:
            out.append(text)
            index = match.end()
    return "".join(out)


def check_functions(path, code):
    """Counts from the line of `func` or `init` to the line of its closing brace."""
    for start in re.finditer(r"\b(?:func\s+[^\s(<]+|init[?!]?|deinit|subscript)\s*(?=[(<{])", code):
        brace = code.find("{", start.end())
        # A requirement of a protocol has no body: another declaration comes first.
        between = code[start.end():brace] if brace >= 0 else ""
        if brace < 0 or re.search(r"\n\s*(?:package |private |static |mutating )*(?:func|var|init|let|\})\b|\n\s*\}", between):
            continue
        depth, position = 0, brace
        while position < len(code):
            depth += {"{": 1, "}": -1}.get(code[position], 0)
            if depth == 0:
                break
            position += 1
        lines = code.count("\n", start.start(), position) + 1
        if lines > FUNCTION_LINES:
            breach(path, code.count("\n", 0, start.start()) + 1, f"a function of {lines} lines (limit {FUNCTION_LINES})")


def check_swift(path, allowed, is_test):
    with open(path, encoding="utf-8") as file:
        source = file.read()
    lines = source.split("\n")
    if len(lines) - 1 > FILE_LINES and path not in LONG_FILES:
        breach(path, 0, f"{len(lines) - 1} lines (limit {FILE_LINES})")
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_COLUMNS:
            breach(path, number, f"a line of {len(line)} columns (limit {LINE_COLUMNS})")
    if not lines[0].startswith("//"):
        breach(path, 1, "the file does not open with a comment that says what it is for")
    code = without_comments_and_strings(source)
    code_lines = code.split("\n")
    imports = set()
    for number, line in enumerate(code_lines, 1):
        match = re.match(r"\s*(?:@\w+ )*(?:\w+ )?import (?:(?:struct|class|enum|func|var|protocol) )?(\w+)", line)
        if match:
            imports.add(match.group(1))
            if match.group(1) not in allowed:
                breach(path, number, f"imports {match.group(1)}, which Package.swift does not allow here")
    if is_test:
        return
    for why, pattern, places in BANNED:
        if path.startswith(places) if places else False:
            continue
        for number, line in enumerate(code_lines, 1):
            if re.search(pattern, line):
                breach(path, number, f"uses {why}")
    if "Glibc" in imports and path.startswith("Sources/Kedge") and not path.startswith("Sources/KedgeCore/"):
        for number, line in enumerate(code_lines, 1):
            match = re.search(SYSTEM_CALLS, line)
            if match and not re.search(r"\bfunc\s+" + match.group(1), line):
                breach(path, number, f"calls {match.group(1)}() directly: system calls go through KedgeCore")
    check_functions(path, code)


def check_text(path):
    """What holds for every text file of the tree."""
    here = os.path.dirname(os.getcwd())
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if path != "scripts/testing/tidy.py" and re.search(r"first file to come|Placeholder\.swift", line):
                breach(path, number, "a placeholder")
            if re.search(r"\b(TODO|FIXME|XXX)\b(?!.*#\d)", line) and not path.endswith((".md", "tidy.py")):
                breach(path, number, "an unfinished mark that names no issue")
            if len(here) > 1 and re.search(r"(?<![\w.}])" + re.escape(here) + r"/", line) and here not in ("/tmp", "/root", "/home"):
                breach(path, number, "a path of this machine")


def wrap_comments(path):
    """Moves what stands beyond the last column of a comment line to the next line of its paragraph."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    index = 0
    while index < len(lines):
        lead = re.match(r"\s*///? +(?:\d+\. |\* |- )?", lines[index])
        cut = lines[index].rfind(" ", 0, LINE_COLUMNS + 1)
        if len(lines[index]) > LINE_COLUMNS and lead and cut > lead.end():
            slashes = re.match(r"\s*///? +", lead.group())
            continued = slashes.group() + " " * (lead.end() - slashes.end())
            rest, lines[index] = lines[index][cut + 1:], lines[index][:cut]
            following = lines[index + 1]
            if re.match(re.escape(continued) + r"(?!\d+\. |\* |- )\S", following):
                lines[index + 1] = continued + rest + " " + following[len(continued):]
            else:
                lines.insert(index + 1, continued + rest)
        index += 1
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


def main():
    package = json.load(sys.stdin)
    for target in package["targets"]:
        name, kind = target["name"], target["type"]
        folder = target.get("path") or ("Tests/" if kind == "test" else "Sources/") + name
        is_test = folder.startswith(("Tests/", "Benchmarks/"))
        allowed = {list(item.values())[0][0] for item in target["dependencies"]} | SYSTEM_MODULES
        if is_test:
            allowed |= {"Testing"}
        for path in files(folder + "/*.swift"):
            check_swift(path, allowed, is_test)
        if name.startswith("Kedge") and not is_test and not os.path.exists(folder + "/README.md"):
            breach(folder, 0, "has no README.md")
    for folder in ("Tests", "scripts", "Catalog"):
        if not os.path.exists(folder + "/README.md"):
            breach(folder, 0, "has no README.md")
    for path in files("*README.md"):
        if path != "README.md":
            with open(path, encoding="utf-8") as file:
                count = len(file.read().splitlines())
            if not 3 <= count <= README_LINES:
                breach(path, 0, f"{count} lines (3 to {README_LINES})")
    for path in files("*"):
        if FORBIDDEN_FOLDERS & set(path.split("/")[:-1]):
            breach(path, 0, "lies in a folder whose name says nothing")
        if re.search(r"\.(swift|c|h|md|sh|py|1|json|conf)$", path):
            check_text(path)
        if path.startswith("scripts/") and path.endswith(".sh") and not os.access(path, os.X_OK):
            breach(path, 0, "is not executable")
        if path.endswith("/Placeholder.swift"):
            breach(path, 0, "a placeholder")
    return 1 if breaches else 0


if sys.argv[1:] == ["--fix"]:
    for swift_file in files("Sources/*.swift") + files("Tests/*.swift") + files("Benchmarks/*.swift"):
        wrap_comments(swift_file)
else:
    sys.exit(main())
