// Results and errors as text or as one JSON document.
//
// Text: results on standard output, errors on standard error. JSON: either goes to standard output, as the only
// document there, so that a script reads one place; an error is {"error": {...}}. What comes from outside (file names,
// a repository's contents) cannot move the cursor or fake a line: control characters are printed as escapes.
package import KedgeCore

/// Texts for errors and results.
package enum OutputRenderer {
    /// The error's lines for a terminal or a log file, each cause after the detail.
    package static func errorLines(_ error: KedgeError) -> [String] {
        var lines = ["kedge: error: " + printable(error.message)]
        if let detail = error.detail { lines.append("detail: " + printable(detail)) }
        var cause = error.cause
        while let current = cause {
            lines.append("cause: " + printable(current.message))
            if let detail = current.detail { lines.append("detail: " + printable(detail)) }
            cause = current.cause
        }
        if let hint = error.hint { lines.append("hint: " + printable(hint)) }
        lines.append("code: " + error.code.rawValue)
        return lines
    }

    /// `{"error": {...}}` with a null for each part that the error lacks.
    package static func errorJSON(_ error: KedgeError) -> JSONValue {
        ["error": errorMembers(error)]
    }

    /// The members of an error, for results that hold errors.
    static func errorMembers(_ error: KedgeError) -> JSONValue {
        [
            "code": .string(error.code.rawValue), "message": .string(error.message),
            "detail": .optional(error.detail), "hint": .optional(error.hint),
            "retryable": .bool(error.code.isRetryable), "cause": error.cause.map(errorMembers) ?? .null,
        ]
    }

    /// The result as the bytes of standard output.
    package static func output(_ result: CommandResult, asJSON: Bool) -> [UInt8] {
        if asJSON { return result.json == .null ? [] : Array((result.json.prettyText + "\n").utf8) }
        var bytes: [UInt8] = []
        for line in result.lines {
            bytes.append(contentsOf: printable(line).utf8)
            bytes.append(0x0A)
        }
        return bytes
    }

    /// The text with control characters, those of Unicode included, replaced by escapes such as `\u{1B}`.
    package static func printable(_ text: String) -> String {
        escaping(text) { "\\u{\(String($0.value, radix: 16, uppercase: true))}" }
    }

    /// JSON text with the same characters replaced by JSON's own escapes, such as `\u009b`. It must have no line
    /// breaks: outside of strings an escape means nothing.
    package static func printableJSON(_ text: String) -> String {
        escaping(text) { scalar in
            let digits = String(scalar.value, radix: 16)
            return "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
        }
    }

    private static func escaping(_ text: String, _ escape: (Unicode.Scalar) -> String) -> String {
        func isControl(_ scalar: Unicode.Scalar) -> Bool {
            switch scalar.value {
            // C0, DEL and C1; line and paragraph separators; marks that change the direction of what follows.
            case 0..<0x20, 0x7F..<0xA0, 0x2028, 0x2029, 0x200E, 0x200F, 0x202A...0x202E, 0x2066...0x2069: true
            default: false
            }
        }
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if isControl(scalar) { result += escape(scalar) } else { result.unicodeScalars.append(scalar) }
        }
        return result
    }
}

/// A table of text with aligned columns, two spaces apart.
package struct TextTable: Sendable {
    /// A column's heading, and on which side its texts line up.
    package enum Column: Sendable {
        case left(String)
        case right(String)

        fileprivate var heading: String {
            switch self {
            case .left(let text), .right(let text): text
            }
        }
    }

    private let columns: [Column]
    private var rows: [[String]] = []

    package init(_ columns: [Column]) { self.columns = columns }

    /// Adds a row with one text for each column.
    package mutating func add(_ row: [String]) {
        precondition(row.count == columns.count, "a table row must fill its columns")
        rows.append(row.map(OutputRenderer.printable))
    }

    /// The headings and the rows, without white space at the end of a line.
    package var lines: [String] {
        let all = [columns.map(\.heading)] + rows
        let widths = columns.indices.map { column in all.map { $0[column].unicodeScalars.count }.max() ?? 0 }
        return all.map { row in
            var line = ""
            for (index, text) in row.enumerated() {
                if index > 0 { line += "  " }
                let padding = String(repeating: " ", count: widths[index] - text.unicodeScalars.count)
                if case .right = columns[index] { line += padding + text } else { line += text + padding }
            }
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
    }
}
