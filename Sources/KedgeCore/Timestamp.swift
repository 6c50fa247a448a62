// Moments in time: microseconds, as PostgreSQL counts them, printed as ISO 8601 in UTC.

/// A moment, in microseconds since 1970-01-01T00:00:00Z. May be negative.
package struct Timestamp: Hashable, Comparable, Sendable {
    package let microseconds: Int64

    package init(microseconds: Int64) { self.microseconds = microseconds }

    package init(secondsSince1970 seconds: Int64) { self.init(microseconds: seconds * 1_000_000) }

    /// From PostgreSQL's TimestampTz: microseconds since 2000-01-01T00:00:00Z (src/include/datatype/timestamp.h).
    package init(postgresMicroseconds: Int64) {
        self.init(microseconds: postgresMicroseconds &+ Timestamp.postgresEpochMicroseconds)
    }

    /// Microseconds since 2000-01-01T00:00:00Z.
    package var postgresMicroseconds: Int64 { microseconds &- Timestamp.postgresEpochMicroseconds }

    private static let postgresEpochMicroseconds: Int64 = 946_684_800_000_000

    package static func < (left: Timestamp, right: Timestamp) -> Bool { left.microseconds < right.microseconds }

    /// The moment `seconds` later.
    package func adding(seconds: Int64) -> Timestamp { Timestamp(microseconds: microseconds + seconds * 1_000_000) }
}

extension Timestamp: CustomStringConvertible {
    /// `2026-11-21T02:00:00Z`, with six digits of fraction where it is not a whole second.
    package var description: String {
        let date = CivilDate(self)
        let fraction = date.microsecond == 0 ? "" : "." + padded(date.microsecond, 6)
        return "\(padded(date.year, 4))-\(padded(date.month, 2))-\(padded(date.day, 2))"
            + "T\(padded(date.hour, 2)):\(padded(date.minute, 2)):\(padded(date.second, 2))\(fraction)Z"
    }

    /// `20261121T020000Z`: whole seconds, as in labels.
    package var labelText: String {
        let date = CivilDate(self)
        return "\(padded(date.year, 4))\(padded(date.month, 2))\(padded(date.day, 2))"
            + "T\(padded(date.hour, 2))\(padded(date.minute, 2))\(padded(date.second, 2))Z"
    }
}

/// A moment's calendar fields in UTC, proleptic Gregorian.
package struct CivilDate: Hashable, Sendable {
    package let year: Int
    package let month: Int
    package let day: Int
    package let hour: Int
    package let minute: Int
    package let second: Int
    package let microsecond: Int

    /// The fields of `timestamp`.
    package init(_ timestamp: Timestamp) {
        let day = timestamp.microseconds.floorDivided(by: 86_400_000_000)
        let rest = Int(timestamp.microseconds - day * 86_400_000_000)
        // Days to civil date: Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
        let shifted = Int(day) + 719_468
        let era = Int(Int64(shifted).floorDivided(by: 146_097))
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        self.day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        hour = rest / 3_600_000_000
        minute = rest / 60_000_000 % 60
        second = rest / 1_000_000 % 60
        microsecond = rest % 1_000_000
    }

    /// Days from 1970-01-01 to the given date (days_from_civil of the same source).
    package static func days(year: Int, month: Int, day: Int) -> Int64 {
        let shiftedYear = month <= 2 ? year - 1 : year
        let era = Int(Int64(shiftedYear).floorDivided(by: 400))
        let yearOfEra = shiftedYear - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return Int64(era * 146_097 + dayOfEra - 719_468)
    }

    /// Whether the year has a February 29.
    package static func isLeap(_ year: Int) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

    /// 28 to 31. `month` is from 1 to 12.
    package static func daysInMonth(_ year: Int, _ month: Int) -> Int {
        switch month {
        case 2: isLeap(year) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }
}

extension Int64 {
    /// Division that rounds towards negative infinity.
    fileprivate func floorDivided(by divisor: Int64) -> Int64 {
        let quotient = self / divisor
        return self % divisor < 0 ? quotient - 1 : quotient
    }
}

private func padded(_ number: Int, _ width: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
}

extension Timestamp {
    /// Parses exactly what `description` prints. Nil for anything else; times that people write go through
    /// `TimeInput`.
    package init?(record text: String) {
        let bytes = Array(text.utf8)
        func number(_ range: Range<Int>) -> Int? {
            guard range.upperBound <= bytes.count, bytes[range].allSatisfy({ (0x30...0x39).contains($0) }) else {
                return nil
            }
            return bytes[range].reduce(0) { $0 * 10 + Int($1 - 0x30) }
        }
        let separators: [(Int, UInt8)] = [(4, 0x2D), (7, 0x2D), (10, 0x54), (13, 0x3A), (16, 0x3A)]
        guard bytes.count == 20 || bytes.count == 27, bytes.last == 0x5A,
            separators.allSatisfy({ bytes[$0.0] == $0.1 }), bytes.count == 20 || bytes[19] == 0x2E,
            let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), let hour = number(11..<13),
            let minute = number(14..<16), let second = number(17..<19),
            let fraction = bytes.count == 27 ? number(20..<26) : 0,
            (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second < 60
        else { return nil }
        let seconds =
            CivilDate.days(year: year, month: month, day: day) * 86400 + Int64(hour * 3600 + minute * 60 + second)
        self.init(microseconds: seconds * 1_000_000 + Int64(fraction))
        guard description == text else { return nil }
    }
}
