// The configuration file's language, value by value and error by error.
import KedgeCore
import Testing

@testable import KedgeCommand

@Suite struct ConfigurationFileTests {
    private func parse(_ text: String) throws(KedgeError) -> ConfigurationFile {
        try ConfigurationFile(path: "/k.conf", bytes: Array(text.utf8))
    }

    @Test(
        "values keep =, \\, [, # and spaces (lesson 49)",
        arguments: [
            ("key=a=b", "a=b"), ("key = a\\b", "a\\b"), ("key = [x]", "[x]"), ("key = a#b", "a#b"),
            ("key = a b\t c   # comment", "a b\t c"), ("key = a #", "a"), ("  key\t=\ta  \r", "a"),
            ("key = \"a # b\"", "a # b"), ("key = \" a \"  # c", " a "), ("key = \"\\\"\\\\\"", "\"\\"),
            ("key = \"\"", ""), ("key = gpg -d \"x y\"", "gpg -d \"x y\""), ("key = zstd:3", "zstd:3"),
            ("key = ä/ö", "ä/ö"), ("key =\u{301}/a", "\u{301}/a"), ("key = \"\u{301}a\u{302}\"", "\u{301}a\u{302}"),
            ("#\u{301}\nkey = \u{301}#\u{301} #\u{301}", "\u{301}#\u{301}"),
        ])
    func values(_ line: String, _ value: String) throws {
        let file = try parse("# first\n\n[cluster a] # c\n\(line)")
        #expect(file.sections.count == 1)
        let entry = try #require(file.sections[0].entries.first)
        #expect(file.sections[0].entries.count == 1 && entry.key == "key")
        #expect(entry.line == 4 + line.utf8.count { $0 == 0x0A })
        // Byte by byte: to Swift, texts are equal that name different files.
        #expect(Array(entry.value.utf8) == Array(value.utf8))
    }

    @Test("sections keep their names and order")
    func sections() throws {
        let file = try parse("[repository a.b_c-D9]\n[ cluster  x ]\n\tk = 1\n")
        #expect(file.sections.map(\.kind) == ["repository", "cluster"])
        #expect(file.sections.map(\.name) == ["a.b_c-D9", "x"])
        #expect(file.sections.map(\.line) == [1, 2])
    }

    @Test("errors name the line", arguments: ConfigurationFileTests.errors)
    func refused(_ text: String, _ line: Int, _ problem: String, _ hint: String) {
        let expected =
            "kedge: error: cannot use configuration file \"/k.conf\", line \(line): \(problem)\n"
            + "hint: \(hint)\ncode: configuration"
        #expect(failure { () throws(KedgeError) in try parse(text) } == expected)
    }

    static let sectionHint =
        "Write it as [cluster NAME] or [repository NAME]; a name consists of letters, digits, \".\", \"_\" and \"-\"."

    static let errors: [(String, Int, String, String)] = [
        (
            "k = 1", 1, "key \"k\" stands before any section",
            "Begin a section first, such as [cluster main] or [repository main]."
        ),
        (
            "[cluster a]\nx", 2, "it is neither \"key = value\" nor \"[kind name]\"", "A comment begins with \"#\"."
        ),
        (
            "[cluster a]\nk = 1\nk = 2", 3, "key \"k\" occurs twice in [cluster a]",
            "It is set in line 2 already: remove one of the two."
        ),
        (
            "[cluster a]\n[cluster b]\n[cluster a]", 3, "section [cluster a] occurs twice",
            "It begins in line 1 already: put all its keys there."
        ),
        ("[cluster]", 1, "this cannot be a section", sectionHint),
        ("[cluster a b]", 1, "this cannot be a section", sectionHint),
        ("[cluster a/b]", 1, "this cannot be a section", sectionHint),
        ("[cluster ..]", 1, "this cannot be a section", sectionHint),
        ("[cluster a", 1, "the section's \"]\" is missing", sectionHint),
        (
            "[cluster a]# c", 1, "something follows the section's \"]\"",
            "Write keys on lines of their own; a comment needs white space before its \"#\"."
        ),
        (
            "[cluster a]\nK = 1", 2, "\"K\" cannot be a key",
            "A key consists of small letters, digits and \"-\", such as \"process-max\"."
        ),
        (
            "[cluster a]\nk =  # none", 2, "key \"k\" has no value",
            "Give it one, or remove the line to use the default."
        ),
        (
            "[cluster a]\nk = 'x'", 2, "the value of key \"k\" begins with a single quotation mark",
            "Quote with \"...\" or not at all."
        ),
        ("[cluster a]\nk = \"x", 2, "the quoted value of key \"k\" does not end", "End it with a quotation mark."),
        (
            "[cluster a]\nk = \"x\" y", 2, "something follows the quoted value of key \"k\"",
            "Inside quotes write a quotation mark as \\\"."
        ),
        (
            "[cluster a]\nk = \"\\n\"", 2, "the value of key \"k\" holds a backslash that escapes nothing",
            "Inside quotes write a backslash as \\\\ and a quotation mark as \\\"."
        ),
        ("[cluster a]\nk = a\u{0}b", 2, "it holds a control character (code 0)", "Correct that line."),
    ]

    @Test("bytes that are not UTF-8 are refused")
    func notUTF8() {
        let bytes: [UInt8] = [0x5B, 0x63, 0x20, 0x61, 0x5D, 0x0A, 0x6B, 0x3D, 0xFF]
        #expect(
            failure { () throws(KedgeError) in try ConfigurationFile(path: "/k.conf", bytes: bytes) }
                == "kedge: error: cannot use configuration file \"/k.conf\", line 2: it is not valid UTF-8\n"
                + "hint: Correct that line.\ncode: configuration")
    }

    @Test("a byte order mark is told as what it is", arguments: [[0xEF, 0xBB, 0xBF], [0xFF, 0xFE], [0xFE, 0xFF]])
    func byteOrderMark(_ mark: [UInt8]) {
        let bytes = mark + Array("[cluster a]\n".utf8)
        #expect(
            failure { () throws(KedgeError) in try ConfigurationFile(path: "/k.conf", bytes: bytes) }
                == "kedge: error: cannot use configuration file \"/k.conf\", line 1: it begins with a byte order mark, "
                + "as Windows editors write it\nhint: Save it as UTF-8 without a byte order mark.\ncode: configuration")
    }

    @Test("no line whatsoever makes the parser trap")
    func noise() {
        let pieces = ["[", "]", "cluster", " ", "a", "=", "\"", "\\", "#", "'", "\t", "k", "\r", "é", "\u{301}", "\n"]
        var state: UInt64 = 7
        for _ in 0..<20_000 {
            var text = ""
            for _ in 0..<12 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                text += pieces[Int(state >> 33) % pieces.count]
            }
            do { _ = try parse(text) } catch { #expect(error.code == .configuration) }
        }
    }
}
