// JSON values: what sealed records and `--json` output are made of.
//
// A parser of our own because `archive-push` runs thousands of times a day and Foundation's costs it more than a
// millisecond at first use (docs/decisions/0003-no-foundation.md), and because records come from a possibly hostile
// repository: duplicate keys, numbers out of range, deep nesting and broken UTF-8 are refused, never guessed at.

/// One JSON value. Objects keep the order in which their keys were written.
package enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    /// A number without fraction and exponent.
    case integer(Int64)
    /// A number without fraction and exponent above `Int64.max`.
    case unsigned(UInt64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([JSONMember])
}

/// A key and its value in an object.
package struct JSONMember: Hashable, Sendable {
    package let key: String
    package let value: JSONValue

    package init(_ key: String, _ value: JSONValue) {
        self.key = key
        self.value = value
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(elements.map { JSONMember($0.0, $0.1) })
    }
    package init(nilLiteral: ()) { self = .null }

    /// A whole number of any width.
    package static func int(_ number: some BinaryInteger) -> JSONValue {
        if let value = Int64(exactly: number) { return .integer(value) }
        return .unsigned(UInt64(number))
    }

    /// The string, or null where there is none.
    package static func optional(_ text: String?) -> JSONValue { text.map(JSONValue.string) ?? .null }
}

// MARK: - Writing

extension JSONValue {
    /// The value as JSON text without any white space.
    package var compactText: String {
        var out: [UInt8] = []
        write(to: &out, indent: nil, level: 0)
        return String(decoding: out, as: UTF8.self)
    }

    /// The value as JSON text, indented by two spaces a level, without a final newline.
    package var prettyText: String {
        var out: [UInt8] = []
        write(to: &out, indent: 2, level: 0)
        return String(decoding: out, as: UTF8.self)
    }

    private func write(to out: inout [UInt8], indent: Int?, level: Int) {
        switch self {
        case .null: out.append(contentsOf: "null".utf8)
        case .bool(let value): out.append(contentsOf: (value ? "true" : "false").utf8)
        case .integer(let value): out.append(contentsOf: String(value).utf8)
        case .unsigned(let value): out.append(contentsOf: String(value).utf8)
        case .number(let value): out.append(contentsOf: (value.isFinite ? "\(value)" : "null").utf8)
        case .string(let text): JSONValue.write(text, to: &out)
        case .array(let items):
            JSONValue.writeList(items, "[", "]", to: &out, indent: indent, level: level) { item, out in
                item.write(to: &out, indent: indent, level: level + 1)
            }
        case .object(let members):
            JSONValue.writeList(members, "{", "}", to: &out, indent: indent, level: level) { member, out in
                JSONValue.write(member.key, to: &out)
                out.append(contentsOf: (indent == nil ? ":" : ": ").utf8)
                member.value.write(to: &out, indent: indent, level: level + 1)
            }
        }
    }

    private static func writeList<Item>(
        _ items: [Item], _ open: String, _ close: String, to out: inout [UInt8], indent: Int?, level: Int,
        _ writeItem: (Item, inout [UInt8]) -> Void
    ) {
        func newLine(_ level: Int, _ out: inout [UInt8]) {
            guard let indent, !items.isEmpty else { return }
            out.append(0x0A)
            out.append(contentsOf: repeatElement(0x20, count: indent * level))
        }
        out.append(contentsOf: open.utf8)
        for (index, item) in items.enumerated() {
            if index > 0 { out.append(0x2C) }
            newLine(level + 1, &out)
            writeItem(item, &out)
        }
        newLine(level, &out)
        out.append(contentsOf: close.utf8)
    }

    private static func write(_ text: String, to out: inout [UInt8]) {
        out.append(0x22)
        for byte in text.utf8 {
            switch byte {
            case 0x22: out.append(contentsOf: #"\""#.utf8)
            case 0x5C: out.append(contentsOf: #"\\"#.utf8)
            case 0x0A: out.append(contentsOf: #"\n"#.utf8)
            case 0x0D: out.append(contentsOf: #"\r"#.utf8)
            case 0x09: out.append(contentsOf: #"\t"#.utf8)
            case 0..<0x20: out.append(contentsOf: (#"\u00"# + [byte].hex).utf8)
            default: out.append(byte)
            }
        }
        out.append(0x22)
    }
}

// MARK: - Reading

extension JSONValue {
    /// Parses one JSON text (RFC 8259) from outside.
    ///
    /// Refused besides bad syntax: a duplicate key in an object, more than 32 levels of nesting, more than 2^22 values,
    /// a whole number outside -2^63 to 2^64-1, invalid UTF-8, a lone surrogate, anything after the value. Throws
    /// `damaged`; `what` names the text in the message, such as `commit record "…"`.
    package init(parsing bytes: some Collection<UInt8>, what: String) throws(KedgeError) {
        var parser = JSONParser(bytes: Array(bytes), what: what)
        self = try parser.parseDocument()
    }
}

private struct JSONParser {
    let bytes: [UInt8]
    let what: String
    var offset = 0
    static let maximumDepth = 32
    /// A value takes up to 40 bytes of memory and one byte of text. The largest record, of 64 MiB, has fewer.
    static let maximumValues = 1 << 22
    var values = 0

    mutating func parseDocument() throws(KedgeError) -> JSONValue {
        skipSpace()
        let value = try parseValue(depth: 0)
        skipSpace()
        guard offset == bytes.count else { throw malformed("there is something after the end of the value") }
        return value
    }

    func malformed(_ why: String) -> KedgeError {
        KedgeError(.damaged, "cannot read \(what)", detail: "It is not valid JSON: at byte \(offset), \(why).")
    }

    var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
    }

    mutating func expect(_ byte: UInt8) throws(KedgeError) {
        guard next == byte else { throw malformed("\"\(Character(Unicode.Scalar(byte)))\" is expected") }
        offset += 1
    }

    mutating func parseValue(depth: Int) throws(KedgeError) -> JSONValue {
        guard depth < JSONParser.maximumDepth else { throw malformed("values are nested too deeply") }
        values += 1
        guard values <= JSONParser.maximumValues else { throw malformed("there are too many values") }
        switch next {
        case 0x7B: return .object(try parseObject(depth: depth))
        case 0x5B: return .array(try parseArray(depth: depth))
        case 0x22: return .string(try parseString())
        case 0x74: return try parseWord("true", .bool(true))
        case 0x66: return try parseWord("false", .bool(false))
        case 0x6E: return try parseWord("null", .null)
        default: return try parseNumber()
        }
    }

    mutating func parseWord(_ word: String, _ value: JSONValue) throws(KedgeError) -> JSONValue {
        guard bytes[offset...].starts(with: word.utf8) else { throw malformed("a value is expected") }
        offset += word.utf8.count
        return value
    }

    mutating func parseObject(depth: Int) throws(KedgeError) -> [JSONMember] {
        try expect(0x7B)
        var members: [JSONMember] = []
        var keys: Set<String> = []
        skipSpace()
        if next == 0x7D {
            offset += 1
            return members
        }
        while true {
            skipSpace()
            let key = try parseString()
            guard keys.insert(key).inserted else { throw malformed("the key \"\(key)\" occurs twice") }
            skipSpace()
            try expect(0x3A)
            skipSpace()
            members.append(JSONMember(key, try parseValue(depth: depth + 1)))
            skipSpace()
            if next == 0x2C {
                offset += 1
                continue
            }
            try expect(0x7D)
            return members
        }
    }

    mutating func parseArray(depth: Int) throws(KedgeError) -> [JSONValue] {
        try expect(0x5B)
        var items: [JSONValue] = []
        skipSpace()
        if next == 0x5D {
            offset += 1
            return items
        }
        while true {
            skipSpace()
            items.append(try parseValue(depth: depth + 1))
            skipSpace()
            if next == 0x2C {
                offset += 1
                continue
            }
            try expect(0x5D)
            return items
        }
    }

    mutating func parseNumber() throws(KedgeError) -> JSONValue {
        let start = offset
        func isDigit(_ byte: UInt8?) -> Bool { byte.map { (0x30...0x39).contains($0) } ?? false }
        if next == 0x2D { offset += 1 }
        guard isDigit(next) else { throw malformed("a value is expected") }
        if next == 0x30 {
            offset += 1
            guard !isDigit(next) else { throw malformed("a number begins with 0") }
        }
        while isDigit(next) { offset += 1 }
        var isWhole = true
        if next == 0x2E {
            isWhole = false
            offset += 1
            guard isDigit(next) else { throw malformed("a digit is expected") }
            while isDigit(next) { offset += 1 }
        }
        if next == 0x65 || next == 0x45 {
            isWhole = false
            offset += 1
            if next == 0x2B || next == 0x2D { offset += 1 }
            guard isDigit(next) else { throw malformed("a digit is expected") }
            while isDigit(next) { offset += 1 }
        }
        let text = String(decoding: bytes[start..<offset], as: UTF8.self)
        if isWhole {
            if let value = Int64(text) { return .integer(value) }
            if let value = UInt64(text) { return .unsigned(value) }
            throw malformed("a number is out of range")
        }
        guard let value = Double(text), value.isFinite else { throw malformed("a number is out of range") }
        return .number(value)
    }

    mutating func parseString() throws(KedgeError) -> String {
        try expect(0x22)
        var text: [UInt8] = []
        while let byte = next {
            offset += 1
            switch byte {
            case 0x22:
                guard let string = String(validating: text, as: UTF8.self) else {
                    throw malformed("a string is not valid UTF-8")
                }
                return string
            case 0x5C: try parseEscape(into: &text)
            case 0..<0x20: throw malformed("a string holds a control character")
            default: text.append(byte)
            }
        }
        throw malformed("a string does not end")
    }

    mutating func parseEscape(into text: inout [UInt8]) throws(KedgeError) {
        guard let byte = next else { throw malformed("a string does not end") }
        offset += 1
        switch byte {
        case 0x22, 0x5C, 0x2F: text.append(byte)
        case 0x62: text.append(0x08)
        case 0x66: text.append(0x0C)
        case 0x6E: text.append(0x0A)
        case 0x72: text.append(0x0D)
        case 0x74: text.append(0x09)
        case 0x75:
            var code = UInt32(try parseHexWord())
            if (0xD800..<0xDC00).contains(code) {
                guard next == 0x5C else { throw malformed("half of a surrogate pair is missing") }
                offset += 1
                try expect(0x75)
                let low = UInt32(try parseHexWord())
                guard (0xDC00..<0xE000).contains(low) else { throw malformed("half of a surrogate pair is missing") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw malformed("half of a surrogate pair is missing") }
            text.append(contentsOf: String(scalar).utf8)
        default: throw malformed("an escape is unknown")
        }
    }

    mutating func parseHexWord() throws(KedgeError) -> UInt16 {
        let end = offset + 4
        guard end <= bytes.count, bytes[offset..<end].allSatisfy(\.isHexDigit),
            let value = UInt16(String(decoding: bytes[offset..<end], as: UTF8.self), radix: 16)
        else { throw malformed("four hexadecimal digits are expected") }
        offset = end
        return value
    }
}
