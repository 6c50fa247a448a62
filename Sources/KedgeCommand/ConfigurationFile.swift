// The configuration file as text: sections, keys and values, before anybody asks what they mean.
//
// The language, line by line (UTF-8; lines end with LF or CR LF; at most 1 MiB):
//   blank                 nothing but white space (spaces and tabs)
//   # comment             to the end of the line; a comment may follow a section or a value after white space
//   [kind name]           begins a section; kind: small letters and "-"; name: letters, digits, ".", "_" and "-"
//   key = value           key: small letters, digits and "-"
//   key = "value"         in quotes every character stands for itself, but \\ is a backslash and \" a quotation mark
// An unquoted value goes up to the line's end or to a "#" that follows white space; white space around it is dropped, a
// backslash stands for itself. So only values with " #", with outer white space or with an opening quotation mark need
// quotes (lesson 49). There are no continuation lines. Sections and the keys of one section occur once.
//
// Looked at by bytes, never by what Swift calls a character: a combining mark that follows "=" belongs to the value.
package import KedgeCore

/// One `key = value` and where it stands.
package struct ConfigurationEntry: Hashable, Sendable {
    package let key: String
    package let value: String
    package let line: Int
}

/// One `[kind name]` with its entries, in the file's order.
package struct ConfigurationSection: Hashable, Sendable {
    package let kind: String
    package let name: String
    package let line: Int
    package fileprivate(set) var entries: [ConfigurationEntry]
}

/// A parsed configuration file.
package struct ConfigurationFile: Sendable {
    /// As it was given; for messages.
    package let path: String
    package let sections: [ConfigurationSection]

    /// Parses the file's bytes. Throws `configuration` with the line of the first thing that is wrong.
    package init(path: String, bytes: [UInt8]) throws(KedgeError) {
        self.path = path
        guard !ByteOrderMark.begins(bytes) else {
            throw ConfigurationFile.error(
                path, 1, "it begins with a byte order mark, as Windows editors write it", hint: ByteOrderMark.hint)
        }
        var sections: [ConfigurationSection] = []
        var number = 0
        for var line in bytes.split(separator: 0x0A, omittingEmptySubsequences: false) {
            number += 1
            if line.last == 0x0D { line.removeLast() }
            guard let text = String(validating: line, as: UTF8.self) else {
                throw ConfigurationFile.error(path, number, "it is not valid UTF-8")
            }
            if let bad = line.first(where: { $0 < 0x20 && $0 != 0x09 || $0 == 0x7F }) {
                throw ConfigurationFile.error(path, number, "it holds a control character (code \(bad))")
            }
            switch try ConfigurationFile.parse(text, path, number) {
            case .nothing: break
            case .section(let kind, let name):
                if let first = sections.first(where: { $0.kind == kind && $0.name == name }) {
                    throw ConfigurationFile.error(
                        path, number, "section [\(kind) \(name)] occurs twice",
                        hint: "It begins in line \(first.line) already: put all its keys there.")
                }
                sections.append(ConfigurationSection(kind: kind, name: name, line: number, entries: []))
            case .entry(let key, let value):
                guard let section = sections.last else {
                    throw ConfigurationFile.error(
                        path, number, "key \"\(key)\" stands before any section",
                        hint: "Begin a section first, such as [cluster main] or [repository main].")
                }
                if let first = section.entries.first(where: { $0.key == key }) {
                    throw ConfigurationFile.error(
                        path, number, "key \"\(key)\" occurs twice in [\(section.kind) \(section.name)]",
                        hint: "It is set in line \(first.line) already: remove one of the two.")
                }
                sections[sections.count - 1].entries.append(ConfigurationEntry(key: key, value: value, line: number))
            }
        }
        self.sections = sections
    }

    /// Reads and parses the file. Throws `configuration`, or what reading it failed with.
    package init(path: String, reading readFile: FileReader) throws(KedgeError) {
        try self.init(path: path, bytes: try readFile(path, "configuration file", 1 << 20).bytes)
    }

    /// A `configuration` error about one line.
    static func error(_ path: String, _ line: Int, _ what: String, hint: String? = nil) -> KedgeError {
        KedgeError(
            .configuration, "cannot use configuration file \"\(path)\", line \(line): \(what)",
            hint: hint ?? "Correct that line.")
    }

    // MARK: - One line

    private enum Line {
        case nothing
        case section(kind: String, name: String)
        case entry(key: String, value: String)
    }

    private static func parse(_ line: String, _ path: String, _ number: Int) throws(KedgeError) -> Line {
        let text = trimmed(line[...])
        if text.isEmpty || begins(text, "#") { return .nothing }
        if begins(text, "[") { return try parseSection(text, path, number) }
        guard let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")) else {
            throw error(
                path, number, "it is neither \"key = value\" nor \"[kind name]\"", hint: "A comment begins with \"#\".")
        }
        let key = String(trimmed(text[..<equals]))
        guard isKey(key) else {
            throw error(
                path, number, "\"\(key)\" cannot be a key",
                hint: "A key consists of small letters, digits and \"-\", such as \"process-max\".")
        }
        let value = try parseValue(trimmed(text[text.utf8.index(after: equals)...]), key: key, path, number)
        return .entry(key: key, value: value)
    }

    private static func parseSection(_ text: Substring, _ path: String, _ number: Int) throws(KedgeError) -> Line {
        let hint =
            "Write it as [cluster NAME] or [repository NAME]; "
            + "a name consists of letters, digits, \".\", \"_\" and \"-\"."
        guard let close = text.utf8.firstIndex(of: UInt8(ascii: "]")) else {
            throw error(path, number, "the section's \"]\" is missing", hint: hint)
        }
        guard isEndOfLine(text[text.utf8.index(after: close)...]) else {
            throw error(
                path, number, "something follows the section's \"]\"",
                hint: "Write keys on lines of their own; a comment needs white space before its \"#\".")
        }
        let words = text.utf8[..<close].dropFirst().split(whereSeparator: isSpace).map { Substring($0) }
        guard words.count == 2, words[0].utf8.allSatisfy({ isSmallLetter($0) || $0 == UInt8(ascii: "-") }),
            isSectionName(words[1])
        else { throw error(path, number, "this cannot be a section", hint: hint) }
        return .section(kind: String(words[0]), name: String(words[1]))
    }

    private static func parseValue(
        _ text: Substring, key: String, _ path: String, _ number: Int
    ) throws(KedgeError) -> String {
        if begins(text, "\"") { return try parseQuoted(Substring(text.utf8.dropFirst()), key: key, path, number) }
        if begins(text, "'") {
            throw error(
                path, number, "the value of key \"\(key)\" begins with a single quotation mark",
                hint: "Quote with \"...\" or not at all.")
        }
        var end = text.startIndex
        var isAfterSpace = true
        for index in text.utf8.indices {
            let byte = text.utf8[index]
            if byte == UInt8(ascii: "#"), isAfterSpace { break }
            isAfterSpace = isSpace(byte)
            if !isAfterSpace { end = text.utf8.index(after: index) }
        }
        let value = text[..<end]
        guard !value.isEmpty else {
            throw error(
                path, number, "key \"\(key)\" has no value", hint: "Give it one, or remove the line to use the default."
            )
        }
        return String(value)
    }

    private static func parseQuoted(
        _ text: Substring, key: String, _ path: String, _ number: Int
    ) throws(KedgeError) -> String {
        var value = String.UnicodeScalarView()
        var rest = text.unicodeScalars
        while let scalar = rest.popFirst() {
            switch scalar {
            case "\"":
                guard isEndOfLine(Substring(rest)) else {
                    throw error(
                        path, number, "something follows the quoted value of key \"\(key)\"",
                        hint: "Inside quotes write a quotation mark as \\\".")
                }
                return String(value)
            case "\\":
                guard let escaped = rest.popFirst(), escaped == "\\" || escaped == "\"" else {
                    throw error(
                        path, number, "the value of key \"\(key)\" holds a backslash that escapes nothing",
                        hint: "Inside quotes write a backslash as \\\\ and a quotation mark as \\\".")
                }
                value.append(escaped)
            default: value.append(scalar)
            }
        }
        throw error(
            path, number, "the quoted value of key \"\(key)\" does not end", hint: "End it with a quotation mark.")
    }

    /// Whether nothing but white space or a comment set off by white space is left.
    private static func isEndOfLine(_ rest: Substring) -> Bool {
        let text = trimmed(rest)
        return text.isEmpty || begins(text, "#") && rest.utf8.first.map(isSpace) == true
    }

    private static func begins(_ text: Substring, _ sign: Unicode.Scalar) -> Bool { text.unicodeScalars.first == sign }

    private static func trimmed(_ text: Substring) -> Substring {
        var bytes = text.utf8[...]
        while let first = bytes.first, isSpace(first) { bytes.removeFirst() }
        while let last = bytes.last, isSpace(last) { bytes.removeLast() }
        return Substring(bytes)
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
    private static func isSmallLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) }
    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private static func isKey(_ text: String) -> Bool {
        guard let first = text.utf8.first, isSmallLetter(first) else { return false }
        return text.utf8.allSatisfy { isSmallLetter($0) || isDigit($0) || $0 == UInt8(ascii: "-") }
    }

    /// The names become parts of object names, file names and environment variables.
    private static func isSectionName(_ text: Substring) -> Bool {
        func isWord(_ byte: UInt8) -> Bool { isSmallLetter(byte | 0x20) && byte >= 0x41 || isDigit(byte) }
        guard (1...63).contains(text.utf8.count), let first = text.utf8.first, isWord(first) else { return false }
        return text.utf8.allSatisfy {
            isWord($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".")
        }
    }
}
