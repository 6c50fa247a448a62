// When the clocks of a time zone showed what: the zone files of /usr/share/zoneinfo (TZif version 2 and later, RFC
// 8536).
//
// The file comes from the host, not from a repository; it is checked all the same, so that a damaged one is an error.

/// The offsets of one time zone from UTC, for all times.
package struct TimeZoneRules: Sendable {
    /// How messages name it, such as `Europe/Berlin`.
    package let name: String
    /// Moments of change, ascending, in seconds since 1970; each with the offset (seconds east of UTC) from then on.
    private let transitions: [(time: Int64, offset: Int64)]
    /// The offset before the first transition.
    private let first: Int64
    /// What holds after the last transition; nil: the last offset for ever.
    private let footer: PosixTimeZone?

    /// The zone whose clocks always show UTC.
    package static let utc = TimeZoneRules(name: "UTC", rule: nil)

    /// A zone by a POSIX rule alone; nil: UTC.
    package init(name: String, rule: PosixTimeZone?) {
        self.name = name
        transitions = []
        first = 0
        footer = rule
    }

    /// Whether `name` may be looked up below /usr/share/zoneinfo: it stays there, and holds only what zone names hold.
    package static func isValidName(_ name: String) -> Bool {
        guard (1...64).contains(name.utf8.count) else { return false }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return parts.allSatisfy { part in
            !part.isEmpty && !part.hasPrefix(".")
                && part.utf8.allSatisfy { byte in
                    switch byte {
                    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "+"):
                        true
                    default: false
                    }
                }
        }
    }

    /// Parses a zone file. Throws `damaged`.
    package init(name: String, file: [UInt8]) throws(KedgeError) {
        self.name = name
        var cursor = ZoneFileCursor(bytes: file, name: name)
        let old = try cursor.header()
        // Version 1 holds 32-bit times only; the block for old readers is stepped over.
        try cursor.skip(old.dataBytes(timeBytes: 4))
        let header = try cursor.header()
        var times: [Int64] = []
        for _ in 0..<header.timeCount { times.append(try cursor.i64()) }
        guard zip(times, times.dropFirst()).allSatisfy({ $0 < $1 }) else {
            throw cursor.malformed("its times are not ascending")
        }
        var types: [UInt8] = []
        for _ in 0..<header.timeCount { types.append(try cursor.u8()) }
        var offsets: [Int64] = []
        for _ in 0..<header.typeCount {
            offsets.append(Int64(try cursor.i32()))
            try cursor.skip(2)
        }
        guard offsets.allSatisfy({ (-86_400...86_400).contains($0) }), let first = offsets.first,
            types.allSatisfy({ $0 < offsets.count })
        else { throw cursor.malformed("its offsets are out of range") }
        try cursor.skip(header.charCount + header.standardCount + header.universalCount)
        let text = try cursor.footer()
        let footer = PosixTimeZone(text)
        guard text.isEmpty || footer != nil else { throw cursor.malformed("its rule \"\(text)\" is not understood") }
        transitions = zip(times, types).map { (time: $0, offset: offsets[Int($1)]) }
        self.first = first
        self.footer = footer
    }

    /// Seconds east of UTC at `time`, in seconds since 1970.
    package func offset(at time: Int64) -> Int64 {
        var low = 0
        var high = transitions.count
        while low < high {
            let middle = (low + high) / 2
            if transitions[middle].time <= time { low = middle + 1 } else { high = middle }
        }
        if low == transitions.count, let footer { return footer.offset(at: time) }
        return low == 0 ? first : transitions[low - 1].offset
    }

    /// The moments at which the zone's clocks showed `local` (seconds since 1970 as if it were UTC), ascending: one as
    /// a rule, none where clocks skipped it, two where they showed it twice.
    package func moments(showing local: Int64) -> [Int64] {
        Set(offsets(around: local)).map { local - $0 }.filter { offset(at: $0) + $0 == local }.sorted()
    }

    /// The offsets before and after the change that is nearest to a skipped `local` time.
    package func offsetsAroundGap(at local: Int64) -> (before: Int64, after: Int64) {
        for change in changes(around: local) {
            let before = offset(at: change - 1)
            let after = offset(at: change)
            if change + before <= local, local < change + after { return (before, after) }
        }
        let offset = offset(at: local)
        return (offset, offset)
    }

    /// All offsets that hold within 26 hours, the greatest distance between a local time and its moment and some more.
    private func offsets(around local: Int64) -> [Int64] {
        [offset(at: local - TimeZoneRules.reach)] + changes(around: local).map { offset(at: $0) }
    }

    private func changes(around local: Int64) -> [Int64] {
        let range = local - TimeZoneRules.reach...local + TimeZoneRules.reach
        return transitions.map(\.time).filter(range.contains) + (footer?.changes(in: range) ?? [])
    }

    private static let reach: Int64 = 26 * 3600
}

/// A cursor over a zone file's bytes; all numbers are big-endian.
private struct ZoneFileCursor {
    let bytes: [UInt8]
    let name: String
    var offset = 0

    struct Header {
        let universalCount: Int
        let standardCount: Int
        let timeCount: Int
        let typeCount: Int
        let charCount: Int

        func dataBytes(timeBytes: Int) -> Int {
            timeCount * (timeBytes + 1) + typeCount * 6 + charCount + standardCount + universalCount
        }
    }

    func malformed(_ why: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot read the file of time zone \"\(name)\"", detail: "It is not a zone file: \(why).",
            hint: "Install the package tzdata again.")
    }

    mutating func skip(_ count: Int) throws(KedgeError) {
        guard count <= bytes.count - offset else { throw malformed("it ends too early") }
        offset += count
    }

    mutating func u8() throws(KedgeError) -> UInt8 {
        try skip(1)
        return bytes[offset - 1]
    }

    mutating func i32() throws(KedgeError) -> Int32 {
        try skip(4)
        return Int32(bitPattern: bytes[offset - 4..<offset].reduce(0) { $0 << 8 | UInt32($1) })
    }

    mutating func i64() throws(KedgeError) -> Int64 {
        try skip(8)
        return Int64(bitPattern: bytes[offset - 8..<offset].reduce(0) { $0 << 8 | UInt64($1) })
    }

    mutating func header() throws(KedgeError) -> Header {
        let start = offset
        try skip(20)
        guard bytes[start..<start + 4].elementsEqual("TZif".utf8) else { throw malformed("it begins otherwise") }
        guard bytes[start + 4] >= UInt8(ascii: "2") else { throw malformed("it is of version 1, which is too old") }
        func count() throws(KedgeError) -> Int {
            let number = try i32()
            // No count can exceed the bytes that are there; so sums of them cannot overflow either.
            guard (0...Int32(clamping: bytes.count)).contains(number) else { throw malformed("it ends too early") }
            return Int(number)
        }
        let universal = try count()
        let standard = try count()
        let leaps = try count()
        // The files below right/ count leap seconds, which neither PostgreSQL nor the system clock does.
        guard leaps == 0 else { throw malformed("it counts leap seconds") }
        return Header(
            universalCount: universal, standardCount: standard, timeCount: try count(), typeCount: try count(),
            charCount: try count())
    }

    /// The rule between the last two newlines; may be empty.
    mutating func footer() throws(KedgeError) -> String {
        guard try u8() == 0x0A, let end = bytes[offset...].firstIndex(of: 0x0A) else {
            throw malformed("its rule is missing")
        }
        return String(decoding: bytes[offset..<end], as: UTF8.self)
    }
}
