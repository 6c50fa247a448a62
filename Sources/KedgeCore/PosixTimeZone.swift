// POSIX time zone rules such as `CET-1CEST,M3.5.0,M10.5.0/3`: what holds after the last change that a zone file lists.
//
// Grammar and meaning: POSIX, "Other Environment Variables", TZ; RFC 8536 section 3.3.1 widens times to -167 to 167
// hours.

/// A standard time and, for some zones, a daylight saving time with the two days of the year when clocks change.
package struct PosixTimeZone: Hashable, Sendable {
    private struct Daylight: Hashable, Sendable {
        let offset: Int64
        let start: Change
        let end: Change
    }

    private struct Change: Hashable, Sendable {
        enum Day: Hashable, Sendable {
            /// 1 to 365, February 29 never counted.
            case julian(Int64)
            /// 0 to 365, February 29 counted.
            case ordinal(Int64)
            /// Day of the week (0: Sunday), in the week 1 to 5 (5: the last) of the month.
            case weekday(month: Int, week: Int64, day: Int64)
        }

        let day: Day
        /// Seconds from the local midnight that begins the day.
        let time: Int64
    }

    /// Seconds east of UTC.
    private let standard: Int64
    private let daylight: Daylight?

    /// Parses a rule. Nil for what is none, and for a daylight saving time without its two changes.
    package init?(_ text: String) {
        var parser = PosixParser(text)
        guard parser.name(), let west = parser.offset(maximumHours: 24) else { return nil }
        standard = -west
        if parser.isAtEnd {
            daylight = nil
            return
        }
        guard parser.name() else { return nil }
        var offset = standard + 3600
        if !parser.isNext(",") {
            guard let west = parser.offset(maximumHours: 24) else { return nil }
            offset = -west
        }
        guard let start = PosixTimeZone.change(&parser), let end = PosixTimeZone.change(&parser), parser.isAtEnd else {
            return nil
        }
        daylight = Daylight(offset: offset, start: start, end: end)
    }

    private static func change(_ parser: inout PosixParser) -> Change? {
        guard parser.skip(",") else { return nil }
        let day: Change.Day
        if parser.skip("M") {
            guard let month = parser.number(1...12), parser.skip("."), let week = parser.number(1...5),
                parser.skip("."), let weekday = parser.number(0...6)
            else { return nil }
            day = .weekday(month: Int(month), week: week, day: weekday)
        } else if parser.skip("J") {
            guard let number = parser.number(1...365) else { return nil }
            day = .julian(number)
        } else {
            guard let number = parser.number(0...365) else { return nil }
            day = .ordinal(number)
        }
        guard parser.skip("/") else { return Change(day: day, time: 7200) }
        guard let time = parser.offset(maximumHours: 167) else { return nil }
        return Change(day: day, time: time)
    }

    /// Seconds east of UTC at `time`, in seconds since 1970.
    package func offset(at time: Int64) -> Int64 {
        guard let daylight else { return standard }
        let year = CivilDate(Timestamp(secondsSince1970: time + standard)).year
        let (start, end) = changes(in: year, daylight)
        let isDaylight = start < end ? start <= time && time < end : !(end <= time && time < start)
        return isDaylight ? daylight.offset : standard
    }

    /// The moments from `range` when the offset may change.
    package func changes(in range: ClosedRange<Int64>) -> [Int64] {
        guard let daylight else { return [] }
        let first = CivilDate(Timestamp(secondsSince1970: range.lowerBound)).year - 1
        let last = CivilDate(Timestamp(secondsSince1970: range.upperBound)).year + 1
        return (first...last).flatMap { year in
            let (start, end) = changes(in: year, daylight)
            return [start, end]
        }
        .filter(range.contains)
    }

    private func changes(in year: Int, _ daylight: Daylight) -> (start: Int64, end: Int64) {
        // The clock that shows the time of a change is the one that it puts an end to.
        (
            PosixTimeZone.localSeconds(daylight.start, year) - standard,
            PosixTimeZone.localSeconds(daylight.end, year) - daylight.offset
        )
    }

    private static func localSeconds(_ change: Change, _ year: Int) -> Int64 {
        let newYear = CivilDate.days(year: year, month: 1, day: 1)
        let day: Int64
        switch change.day {
        case .julian(let number): day = newYear + number - 1 + (CivilDate.isLeap(year) && number >= 60 ? 1 : 0)
        case .ordinal(let number): day = newYear + number
        case .weekday(let month, let week, let weekday):
            let first = CivilDate.days(year: year, month: month, day: 1)
            // 1970-01-01, day 0, was a Thursday (4).
            let weekdayOfFirst = ((first + 4) % 7 + 7) % 7
            var found = first + (weekday - weekdayOfFirst + 7) % 7 + 7 * (week - 1)
            if found >= first + Int64(CivilDate.daysInMonth(year, month)) { found -= 7 }
            day = found
        }
        return day * 86_400 + change.time
    }
}

/// A cursor over the rule's bytes.
private struct PosixParser {
    private var rest: Substring.UTF8View

    init(_ text: String) { rest = text.utf8[...] }

    var isAtEnd: Bool { rest.isEmpty }

    func isNext(_ character: Unicode.Scalar) -> Bool { rest.first == UInt8(ascii: character) }

    mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard isNext(character) else { return false }
        rest.removeFirst()
        return true
    }

    /// At least three letters, or anything alphanumeric or signed between < and >.
    mutating func name() -> Bool {
        if skip("<") {
            while let byte = rest.popFirst() {
                if byte == UInt8(ascii: ">") { return true }
                guard PosixParser.isLetter(byte) || PosixParser.isDigit(byte) || byte == 0x2B || byte == 0x2D else {
                    return false
                }
            }
            return false
        }
        let letters = rest.prefix(while: PosixParser.isLetter)
        rest = rest[letters.endIndex...]
        return letters.count >= 3
    }

    /// `[+-]h[h[h]][:mm[:ss]]` in seconds.
    mutating func offset(maximumHours: Int64) -> Int64? {
        let isNegative = isNext("-")
        if isNegative || isNext("+") { rest.removeFirst() }
        guard let hours = number(0...maximumHours) else { return nil }
        var seconds = hours * 3600
        for unit in [60, 1] as [Int64] where skip(":") {
            guard let part = number(0...59) else { return nil }
            seconds += part * unit
        }
        return isNegative ? -seconds : seconds
    }

    mutating func number(_ range: ClosedRange<Int64>) -> Int64? {
        let digits = rest.prefix(while: PosixParser.isDigit)
        guard (1...3).contains(digits.count), let number = Int64(Substring(digits)), range.contains(number) else {
            return nil
        }
        rest = rest[digits.endIndex...]
        return number
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte | 0x20) }
    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
}
