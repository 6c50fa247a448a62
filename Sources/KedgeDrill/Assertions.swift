// The user's own checks: a file of SQL statements each of which must return true. Parsing is pure.
//
// Statements end with a semicolon outside of quotes, dollar quotes, comments and parentheses, as psql splits them
// (src/fe_utils/psqlscan.l). A line "\connect NAME" (or \c) says in which database the following ones run.

package import KedgeCore

/// One statement of a check file.
package struct Assertion: Hashable, Sendable {
    package let sql: String
    /// Where it begins, from 1.
    package let line: Int
    /// Nil: the database that the configuration names.
    package let database: String?

    package init(sql: String, line: Int, database: String?) {
        self.sql = sql
        self.line = line
        self.database = database
    }

    /// The statements of a file. Throws `configuration` for what psql would not understand either.
    package static func parse(_ bytes: [UInt8], file: String) throws(KedgeError) -> [Assertion] {
        var scanner = Scanner(bytes: bytes, file: file)
        return try scanner.scan()
    }

    private struct Scanner {
        let bytes: [UInt8]
        let file: String
        var position = 0
        var line = 1
        var found: [Assertion] = []
        var database: String?
        var statement: [UInt8] = []
        var statementLine = 1
        var depth = 0

        init(bytes: [UInt8], file: String) {
            self.bytes = bytes
            self.file = file
        }

        mutating func scan() throws(KedgeError) -> [Assertion] {
            while position < bytes.count {
                let byte = bytes[position]
                switch byte {
                case UInt8(ascii: "-") where next == byte: skip { $0 == 0x0A }
                case UInt8(ascii: "/") where next == UInt8(ascii: "*"): try skipComment()
                case UInt8(ascii: "'"), UInt8(ascii: "\""): try takeQuoted(byte)
                case UInt8(ascii: "$"): try takeDollar()
                case UInt8(ascii: "\\") where statement.allSatisfy(isSpace): try takeCommand()
                case UInt8(ascii: ";") where depth == 0:
                    position += 1
                    finish()
                default:
                    if byte == UInt8(ascii: "(") { depth += 1 }
                    if byte == UInt8(ascii: ")") { depth = max(0, depth - 1) }
                    take()
                }
            }
            finish()
            return found
        }

        private var next: UInt8? { position + 1 < bytes.count ? bytes[position + 1] : nil }

        private func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }

        /// Moves the present byte into the statement.
        private mutating func take() {
            let byte = bytes[position]
            if statement.isEmpty && !isSpace(byte) { statementLine = line }
            if !(statement.isEmpty && isSpace(byte)) { statement.append(byte) }
            if byte == 0x0A { line += 1 }
            position += 1
        }

        private mutating func skip(until isEnd: (UInt8) -> Bool) {
            while position < bytes.count, !isEnd(bytes[position]) { position += 1 }
        }

        private mutating func skipComment() throws(KedgeError) {
            let start = line
            var nesting = 0
            while position < bytes.count {
                if bytes[position] == UInt8(ascii: "/"), next == UInt8(ascii: "*") {
                    nesting += 1
                    position += 2
                } else if bytes[position] == UInt8(ascii: "*"), next == UInt8(ascii: "/") {
                    nesting -= 1
                    position += 2
                    if nesting == 0 { return }
                } else {
                    if bytes[position] == 0x0A { line += 1 }
                    position += 1
                }
            }
            throw error(start, "a comment does not end")
        }

        /// A literal or a quoted name: a doubled quote stays inside, and after E a backslash takes the next byte along.
        private mutating func takeQuoted(_ quote: UInt8) throws(KedgeError) {
            let start = line
            let before = statement.dropLast().last
            let isEscaped =
                quote == UInt8(ascii: "'")
                && (statement.last == UInt8(ascii: "E") || statement.last == UInt8(ascii: "e"))
                && !(before.map(isWordByte) ?? false)
            take()
            while position < bytes.count {
                let byte = bytes[position]
                if isEscaped, byte == UInt8(ascii: "\\"), next != nil {
                    take()
                } else if byte == quote {
                    take()
                    guard position < bytes.count, bytes[position] == quote else { return }
                }
                take()
            }
            throw error(start, "a quoted text does not end")
        }

        private func isWordByte(_ byte: UInt8) -> Bool {
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || byte == 0x5F || byte == 0x24 || byte >= 0x80
        }

        /// `$tag$ … $tag$`; a `$` in a name or a parameter is only itself.
        private mutating func takeDollar() throws(KedgeError) {
            let tagEnd = bytes[(position + 1)...].firstIndex { !isWordByte($0) || $0 == 0x24 }
            let startsName = statement.last.map(isWordByte) ?? false
            guard !startsName, let tagEnd, bytes[tagEnd] == UInt8(ascii: "$"),
                !(0x30...0x39).contains(bytes[position + 1])
            else { return take() }
            let (start, tag) = (line, Array(bytes[position...tagEnd]))
            for _ in tag { take() }
            while position < bytes.count {
                if bytes[position...].starts(with: tag) {
                    for _ in tag { take() }
                    return
                }
                take()
            }
            throw error(start, "a text quoted with \(String(decoding: tag, as: UTF8.self)) does not end")
        }

        private mutating func takeCommand() throws(KedgeError) {
            let start = position
            skip { $0 == 0x0A }
            let text = String(decoding: bytes[start..<position], as: UTF8.self)
            let word = text.prefix { $0 != " " && $0 != "\t" }
            let rest = text.dropFirst(word.count).drop { $0 == " " || $0 == "\t" }
            let name = String(String(rest.reversed().drop { $0.isWhitespace }).reversed())
            let isQuoted = name.count > 2 && name.hasPrefix("\"") && name.hasSuffix("\"")
            guard word == "\\connect" || word == "\\c", !name.isEmpty, isQuoted || !name.contains(" ") else {
                throw error(line, "\"\(text)\" is not understood")
            }
            database = isQuoted ? String(name.dropFirst().dropLast()) : name
            statement = []
        }

        private mutating func finish() {
            while let last = statement.last, isSpace(last) { statement.removeLast() }
            if !statement.isEmpty {
                found.append(
                    Assertion(
                        sql: String(decoding: statement, as: UTF8.self), line: statementLine, database: database))
            }
            statement = []
            depth = 0
        }

        private func error(_ line: Int, _ problem: String) -> KedgeError {
            KedgeError(
                .configuration, "cannot use check file \"\(file)\", line \(line): \(problem)",
                hint:
                    "Write SQL statements that return true, each ended by a semicolon; \"\\connect NAME\" changes the "
                    + "database.")
        }
    }
}
