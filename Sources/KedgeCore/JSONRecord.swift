// Typed access to the members of a JSON object that came from outside.

/// A JSON object whose members are read with their types checked; each failure names the record and the member.
///
/// Unknown members are kept and ignored: a newer kedge may have written them. What a reader must not ignore is
/// announced by a feature gate or by the envelope, never by a member.
package struct JSONRecord: Sendable {
    /// How errors name it, such as `commit record "20261121T020000Z-full-7k3q"`.
    package let what: String
    private let members: [String: JSONValue]

    /// The members of `value`. Throws `damaged` where it is not an object.
    package init(_ value: JSONValue, what: String) throws(KedgeError) {
        guard case .object(let list) = value else {
            throw KedgeError(.damaged, "cannot read \(what)", detail: "It is not a JSON object.")
        }
        self.what = what
        var members: [String: JSONValue] = [:]
        for member in list { members[member.key] = member.value }
        self.members = members
    }

    /// Parses `bytes` as one JSON object. Throws `damaged`.
    package init(parsing bytes: some Collection<UInt8>, what: String) throws(KedgeError) {
        try self.init(JSONValue(parsing: bytes, what: what), what: what)
    }

    /// The member's value; nil where it is absent or null.
    package func value(_ key: String) -> JSONValue? {
        guard let value = members[key], value != .null else { return nil }
        return value
    }

    package func string(_ key: String) throws(KedgeError) -> String {
        guard let text = try optionalString(key) else { throw missing(key) }
        return text
    }

    package func optionalString(_ key: String) throws(KedgeError) -> String? {
        guard let value = value(key) else { return nil }
        guard case .string(let text) = value else { throw invalid(key, "is not a string") }
        return text
    }

    /// A whole number that fits `Number`.
    package func integer<Number: FixedWidthInteger>(
        _ key: String, as type: Number.Type = Number.self
    ) throws(KedgeError) -> Number {
        guard let number = try optionalInteger(key, as: type) else { throw missing(key) }
        return number
    }

    package func optionalInteger<Number: FixedWidthInteger>(
        _ key: String, as _: Number.Type = Number.self
    ) throws(KedgeError) -> Number? {
        let number: Number?
        switch value(key) {
        case nil: return nil
        case .integer(let value): number = Number(exactly: value)
        case .unsigned(let value): number = Number(exactly: value)
        default: throw invalid(key, "is not a whole number")
        }
        guard let number else { throw invalid(key, "is out of range") }
        return number
    }

    package func bool(_ key: String) throws(KedgeError) -> Bool {
        guard let value = value(key) else { throw missing(key) }
        guard case .bool(let flag) = value else { throw invalid(key, "is neither true nor false") }
        return flag
    }

    package func array(_ key: String) throws(KedgeError) -> [JSONValue] {
        guard let value = value(key) else { throw missing(key) }
        guard case .array(let items) = value else { throw invalid(key, "is not an array") }
        return items
    }

    /// The member as a record of its own.
    package func record(_ key: String) throws(KedgeError) -> JSONRecord {
        guard let record = try optionalRecord(key) else { throw missing(key) }
        return record
    }

    package func optionalRecord(_ key: String) throws(KedgeError) -> JSONRecord? {
        guard let value = value(key) else { return nil }
        return try JSONRecord(value, what: "\(what), member \"\(key)\"")
    }

    /// Each item of an array member as a record.
    package func records(_ key: String) throws(KedgeError) -> [JSONRecord] {
        var records: [JSONRecord] = []
        for (index, item) in try array(key).enumerated() {
            records.append(try JSONRecord(item, what: "\(what), member \"\(key)\"[\(index)]"))
        }
        return records
    }

    /// A string member that `parse` understands, such as an LSN.
    package func parsed<Value>(_ key: String, _ parse: (String) -> Value?) throws(KedgeError) -> Value {
        guard let value = try optionalParsed(key, parse) else { throw missing(key) }
        return value
    }

    package func optionalParsed<Value>(_ key: String, _ parse: (String) -> Value?) throws(KedgeError) -> Value? {
        guard let text = try optionalString(key) else { return nil }
        guard let value = parse(text) else { throw invalid(key, "has the value \"\(text)\", which cannot be right") }
        return value
    }

    /// A `damaged` error about one member.
    package func invalid(_ key: String, _ why: String) -> KedgeError {
        KedgeError(.damaged, "cannot read \(what)", detail: "Its member \"\(key)\" \(why).")
    }

    private func missing(_ key: String) -> KedgeError { invalid(key, "is missing") }
}

extension JSONRecord {
    /// Checks the member `kedge`, which names the type of a record. Throws `damaged`.
    package func expectType(_ type: String) throws(KedgeError) {
        let found = try string("kedge")
        guard found == type else { throw invalid("kedge", "is \"\(found)\", not \"\(type)\"") }
    }

    /// The items of an array member, each made from a record.
    package func map<Item>(
        _ key: String, _ make: (JSONRecord) throws(KedgeError) -> Item
    ) throws(KedgeError) -> [Item] {
        var items: [Item] = []
        for record in try records(key) { items.append(try make(record)) }
        return items
    }

    /// The items of an array member, each a string.
    package func strings(_ key: String) throws(KedgeError) -> [String] {
        var strings: [String] = []
        for item in try array(key) {
            guard case .string(let text) = item else { throw invalid(key, "holds something that is not a string") }
            strings.append(text)
        }
        return strings
    }
}
