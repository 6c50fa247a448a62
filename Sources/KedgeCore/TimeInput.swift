// Times as people give them: ISO 8601, and what PostgreSQL prints under DateStyle ISO.
//
//   YYYY-MM-DD ("T" | "t" | space) HH:MM [:SS [.f]] [space] [zone]
//   zone: Z | UTC | GMT | (+ | -)HH | (+ | -)HHMM | (+ | -)HH:MM | (+ | -)HH:MM:SS
//
// f has one to six digits: PostgreSQL keeps microseconds, and a target that had to be rounded would not be the one
// that was meant. 24:00:00 is the next day's midnight, as PostgreSQL reads it (src/backend/utils/adt/datetime.c). A
// time without a zone means two different moments to the person and to the server, so it is refused with both.

/// A time as it was written: the clock's reading, and the offset if one was given.
package struct WrittenTime: Hashable, Sendable {
    /// Microseconds since 1970-01-01 00:00:00 on the clock that is meant.
    package let localMicroseconds: Int64
    /// Seconds east of UTC.
    package let offset: Int64?
    /// Without zone and outer white space.
    private let clockText: String
    private let text: String

    /// Parses `text`. Throws `usage`.
    package init(_ text: String) throws(KedgeError) {
        var parser = TimeParser(text)
        do {
            localMicroseconds = try parser.clock()
            clockText = parser.consumed
            offset = try parser.zone()
        } catch {
            throw KedgeError(
                .usage, "cannot read time \"\(text)\"", detail: error.detail,
                hint: "Write it as \"2026-11-20 14:30:00+02\" or \"2026-11-20T12:30:00Z\".")
        }
        self.text = text
    }

    /// The moment that is meant. `zone` is the one that the user named for times without one; `host` is shown in the
    /// error for them. An offset in the text wins over `zone`.
    ///
    /// Throws `usage` where no zone is known, and where the zone's clocks skipped that time or showed it twice.
    package func moment(in zone: TimeZoneRules?, host: TimeZoneRules) throws(KedgeError) -> Timestamp {
        if let offset { return moment(offset) }
        guard let zone else { throw withoutZone(host) }
        let (seconds, fraction) = split
        let moments = zone.moments(showing: seconds)
        if moments.count == 1 { return Timestamp(microseconds: moments[0] * 1_000_000 + fraction) }
        let offsets: [Int64]
        if moments.isEmpty {
            let (before, after) = zone.offsetsAroundGap(at: seconds)
            offsets = [before, after]
        } else {
            offsets = moments.map { seconds - $0 }
        }
        throw KedgeError(
            .usage,
            "cannot tell which moment \"\(text)\" is: "
                + "clocks in time zone \"\(zone.name)\" \(moments.isEmpty ? "skipped it" : "showed it more than once")",
            detail: "It could be " + offsets.map { "\(moment($0)) (\(withOffset($0)))" }.joined(separator: " or ")
                + ".",
            hint: "Write it with its offset, as one of the two in parentheses.")
    }

    private func withoutZone(_ host: TimeZoneRules) -> KedgeError {
        let (seconds, fraction) = split
        let here = host.moments(showing: seconds).map { Timestamp(microseconds: $0 * 1_000_000 + fraction).description }
        let reading = here.isEmpty ? "no moment at all, since clocks skipped it" : here.joined(separator: " or ")
        // /etc/localtime may be a copy of a zone file, without its name.
        let name = TimeZoneRules.isValidName(host.name) ? host.name : "NAME"
        return KedgeError(
            .usage, "cannot tell which moment \"\(text)\" is: it has no time zone",
            detail: "In UTC it is \(moment(0)); in this host's time zone \(host.name) it is \(reading).",
            hint: "Write \"\(withOffset(0))\" for UTC, or another offset, or give --time-zone \(name).")
    }

    private func moment(_ offset: Int64) -> Timestamp {
        Timestamp(microseconds: localMicroseconds - offset * 1_000_000)
    }

    private func withOffset(_ offset: Int64) -> String { clockText + TimeInput.offsetText(offset) }

    /// Whole seconds, rounded down, and the microseconds beyond them.
    private var split: (seconds: Int64, fraction: Int64) {
        let fraction = (localMicroseconds % 1_000_000 + 1_000_000) % 1_000_000
        return ((localMicroseconds - fraction) / 1_000_000, fraction)
    }
}

/// Reads and prints times with offsets.
package enum TimeInput {
    /// The moment that `text` means. Throws `usage`; see `WrittenTime`.
    package static func parse(
        _ text: String, zone: TimeZoneRules?, host: TimeZoneRules
    ) throws(KedgeError) -> Timestamp {
        try WrittenTime(text).moment(in: zone, host: host)
    }

    /// `+02`, `+05:30`, `-00:44:30`: as PostgreSQL prints offsets.
    package static func offsetText(_ offset: Int64) -> String {
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let size = abs(offset)
        var text = (offset < 0 ? "-" : "+") + two(size / 3600)
        if size % 3600 != 0 { text += ":" + two(size % 3600 / 60) }
        if size % 60 != 0 { text += ":" + two(size % 60) }
        return text
    }
}

/// A cursor over the text. Its errors carry only a detail.
private struct TimeParser {
    private let all: Substring.UTF8View
    private var rest: Substring.UTF8View

    init(_ text: String) {
        var bytes = text.utf8[...]
        while bytes.first == 0x20 { bytes.removeFirst() }
        while bytes.last == 0x20 { bytes.removeLast() }
        all = bytes
        rest = bytes
    }

    /// What has been read so far.
    var consumed: String { String(Substring(all[..<rest.startIndex])) }

    private func error(_ detail: String) -> KedgeError { KedgeError(.usage, "", detail: detail) }

    /// Date and time of day, in microseconds since 1970 on their own clock.
    mutating func clock() throws(KedgeError) -> Int64 {
        let year = try number(4, 1...9999, "year")
        try expect("-", "the date")
        let month = try number(2, 1...12, "month")
        try expect("-", "the date")
        let day = try number(2, 1...31, "day")
        guard day <= CivilDate.daysInMonth(year, month) else {
            throw error("That month has only \(CivilDate.daysInMonth(year, month)) days.")
        }
        guard skip("T") || skip("t") || skip(" ") else { throw error("The time of day is missing.") }
        let hour = try number(2, 0...24, "hour")
        try expect(":", "the time of day")
        let minute = try number(2, 0...59, "minute")
        var second = 0
        var fraction = 0
        if skip(":") {
            second = try number(2, 0...59, "second")
            if skip(".") { fraction = try microseconds() }
        }
        guard hour < 24 || minute == 0 && second == 0 && fraction == 0 else {
            throw error("The day ends at 24:00:00.")
        }
        let days = CivilDate.days(year: year, month: month, day: day)
        return (days * 86_400 + Int64(hour * 3600 + minute * 60 + second)) * 1_000_000 + Int64(fraction)
    }

    private mutating func microseconds() throws(KedgeError) -> Int {
        let digits = rest.prefix { (0x30...0x39).contains($0) }
        guard (1...6).contains(digits.count) else {
            throw error("A fraction of a second has one to six digits: PostgreSQL keeps microseconds.")
        }
        rest = rest[digits.endIndex...]
        return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) } * [100_000, 10_000, 1000, 100, 10, 1][digits.count - 1]
    }

    /// The offset in seconds; nil where the text ends.
    mutating func zone() throws(KedgeError) -> Int64? {
        _ = skip(" ")
        if rest.isEmpty { return nil }
        let isNegative = skip("-")
        guard isNegative || skip("+") else {
            let word = String(Substring(rest))
            guard ["Z", "UTC", "GMT"].contains(word.uppercased()) else {
                throw error("\"\(word)\" is not a time zone's offset.")
            }
            return 0
        }
        // The widest offset that PostgreSQL takes is 15:59:59 (MAX_TZDISP_HOUR in src/include/datatype/timestamp.h).
        var seconds = Int64(try number(2, 0...15, "hour of the offset")) * 3600
        if !rest.isEmpty {
            _ = skip(":")
            seconds += Int64(try number(2, 0...59, "minute of the offset")) * 60
        }
        if skip(":") { seconds += Int64(try number(2, 0...59, "second of the offset")) }
        guard rest.isEmpty else { throw error("Something follows the time zone's offset.") }
        return isNegative ? -seconds : seconds
    }

    private mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard rest.first == UInt8(ascii: character) else { return false }
        rest.removeFirst()
        return true
    }

    private mutating func expect(_ character: Unicode.Scalar, _ where: String) throws(KedgeError) {
        guard skip(character) else { throw error("In \(`where`) a \"\(character)\" is missing.") }
    }

    private mutating func number(_ width: Int, _ range: ClosedRange<Int>, _ what: String) throws(KedgeError) -> Int {
        let digits = rest.prefix(width)
        guard digits.count == width, digits.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw error("The \(what) must have \(width) digits.")
        }
        let number = digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
        guard range.contains(number) else {
            throw error("The \(what) must be from \(range.lowerBound) to \(range.upperBound).")
        }
        rest = rest[digits.endIndex...]
        return number
    }
}
