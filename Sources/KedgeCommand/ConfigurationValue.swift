// The values that configuration keys take: how each kind is read from text, and how help texts describe it.
//
// Sizes count in steps of 1024 and times use PostgreSQL's units (postgresql.conf, "Numeric with Unit"), so that one
// rule serves both files; unlike there a duration always needs its unit.
package import KedgeCodec
import KedgeCore

/// What a configuration key accepts.
package enum ConfigurationValueKind: Sendable {
    /// An absolute path.
    case path
    /// Any text that is not empty.
    case text
    case integer(ClosedRange<Int64>)
    /// A number of bytes with a unit: B, kB, MB, GB, TB.
    case size(ClosedRange<Int64>)
    /// A whole number with a unit: ms, s, min (or m), h, d, w.
    case duration(ClosedRange<Duration>)
    /// yes or no.
    case boolean
    case choice([String])
    /// Names separated by commas.
    case list
    /// A codec, optionally with `:level`.
    case compression
}

/// A configuration key's value after it was checked.
package enum ConfigurationValue: Hashable, Sendable {
    case text(String)
    case integer(Int64)
    case flag(Bool)
    case duration(Duration)
    case list([String])
    case compression(CompressionChoice)
}

/// Why a text is not a value of the wanted kind: ends of sentences, for the error that names the key.
struct InvalidValue: Error {
    /// Completes `"VALUE" …`, such as `is not a whole number`.
    let problem: String
    /// A full sentence.
    let hint: String

    init(_ problem: String, hint: String) {
        self.problem = problem
        self.hint = hint
    }
}

extension ConfigurationValueKind {
    /// How help texts name the value.
    package var placeholder: String {
        switch self {
        case .path: "PATH"
        case .text: "TEXT"
        case .integer: "NUMBER"
        case .size: "SIZE"
        case .duration: "DURATION"
        case .boolean: "yes|no"
        case .choice(let choices): choices.joined(separator: "|")
        case .list: "NAME,..."
        case .compression: "CODEC[:LEVEL]"
        }
    }

    /// Reads a value of this kind.
    func parse(_ text: String) throws(InvalidValue) -> ConfigurationValue {
        switch self {
        case .path: return .text(try ConfigurationValueKind.parsePath(text))
        case .text:
            guard !text.isEmpty else { throw InvalidValue("is empty", hint: "Give it a value.") }
            return .text(text)
        case .integer(let range):
            guard let number = ConfigurationValueKind.wholeNumber(text) else {
                throw InvalidValue("is not a whole number", hint: "Give a number from \(range.text).")
            }
            guard range.contains(number) else {
                throw InvalidValue("is out of range", hint: "Give a number from \(range.text).")
            }
            return .integer(number)
        case .size(let range): return .integer(try ConfigurationValueKind.parseSize(text, range))
        case .duration(let range): return .duration(try ConfigurationValueKind.parseDuration(text, range))
        case .boolean:
            switch text.lowercased() {
            case "yes", "on", "true", "1": return .flag(true)
            case "no", "off", "false", "0": return .flag(false)
            default: throw InvalidValue("is neither yes nor no", hint: "Write \"yes\" or \"no\".")
            }
        case .choice(let choices):
            guard choices.contains(text) else {
                throw InvalidValue(
                    "is not one of its values",
                    hint: NearestName.question(text, among: choices)
                        + "It is one of: \(choices.joined(separator: ", ")).")
            }
            return .text(text)
        case .list: return .list(try ConfigurationValueKind.parseList(text))
        case .compression: return .compression(try ConfigurationValueKind.parseCompression(text))
        }
    }

    private static func parsePath(_ text: String) throws(InvalidValue) -> String {
        let slash = UInt8(ascii: "/")
        guard text.utf8.first == slash else {
            throw InvalidValue(
                "is not an absolute path",
                hint: "Begin it with \"/\": PostgreSQL runs the archive commands in its data directory.")
        }
        var path = text.utf8[...]
        while path.count > 1, path.last == slash { path.removeLast() }
        guard !path.contains(0) else { throw InvalidValue("holds a zero byte", hint: "Remove it.") }
        return String(Substring(path))
    }

    private static func parseList(_ text: String) throws(InvalidValue) -> [String] {
        var names: [String] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let name = part.split(separator: " ").joined(separator: " ")
            guard !name.isEmpty else {
                throw InvalidValue("holds an empty name", hint: "Separate names with one comma each.")
            }
            guard !names.contains(name) else {
                throw InvalidValue("names \"\(name)\" twice", hint: "Name each one once.")
            }
            names.append(name)
        }
        return names
    }

    private static func parseCompression(_ text: String) throws(InvalidValue) -> CompressionChoice {
        do {
            return try CompressionChoice(parsing: text)
        } catch {
            throw InvalidValue("is refused: \(error.message)", hint: error.hint ?? "Use zstd.")
        }
    }

    // MARK: - Numbers with units

    private static func wholeNumber(_ text: some StringProtocol) -> Int64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int64(text)
    }

    private static func splitUnit(_ text: String) -> (number: Int64, unit: String)? {
        let digits = text.utf8.prefix { (0x30...0x39).contains($0) }
        guard let number = wholeNumber(text[..<digits.endIndex]) else { return nil }
        return (number, String(text[digits.endIndex...].drop { $0 == " " }))
    }

    private static let sizeUnits: [(name: String, bytes: Int64)] = [
        ("b", 1), ("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30), ("tb", 1 << 40),
    ]

    private static func parseSize(_ text: String, _ range: ClosedRange<Int64>) throws(InvalidValue) -> Int64 {
        let hint = "Give a whole number with one of the units B, kB, MB, GB and TB, such as \"64MB\"."
        guard let (number, name) = splitUnit(text), let unit = sizeUnits.first(where: { $0.name == name.lowercased() })
        else { throw InvalidValue("is not a size", hint: hint) }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: unit.bytes)
        guard !overflow, range.contains(bytes) else {
            throw InvalidValue(
                "is out of range",
                hint: "Give a size from \(HumanText.size(range.lowerBound)) to \(HumanText.size(range.upperBound)).")
        }
        return bytes
    }

    private static let durationUnits: [(name: String, milliseconds: Int64)] = [
        ("ms", 1), ("s", 1000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000),
        ("w", 604_800_000),
    ]

    private static func parseDuration(_ text: String, _ range: ClosedRange<Duration>) throws(InvalidValue) -> Duration {
        let hint = "Give a whole number with one of the units ms, s, min, h, d and w, such as \"90s\" or \"7d\"."
        guard let (number, name) = splitUnit(text), let unit = durationUnits.first(where: { $0.name == name })
        else { throw InvalidValue("is not a duration", hint: hint) }
        let (milliseconds, overflow) = number.multipliedReportingOverflow(by: unit.milliseconds)
        guard !overflow, range.contains(.milliseconds(milliseconds)) else {
            throw InvalidValue(
                "is out of range",
                hint: "Give a duration from \(HumanText.exactDuration(range.lowerBound)) to "
                    + "\(HumanText.exactDuration(range.upperBound)).")
        }
        return .milliseconds(milliseconds)
    }
}

extension ClosedRange<Int64> {
    /// `1 to 64`.
    fileprivate var text: String { "\(lowerBound) to \(upperBound)" }
}
