// What the configuration says of retention, and the calendar that its tiers go by.

package import KedgeCore

/// The rules of one cluster. What several rules keep is kept.
package struct RetentionRules: Hashable, Sendable {
    /// The newest full backups, so many, and every backup after the oldest of these.
    package var keepFull: Int?
    /// Every moment of so many days stays recoverable.
    package var keepDays: Int?
    /// One backup of each of the last so many days, weeks, months and years in which there is a backup.
    package var keepTiers: [RetentionPeriod: Int]
    /// How long a backup stays condemned before it is removed, in seconds.
    package var graceSeconds: Int64
    /// How long proofs outlive their backups, in seconds.
    package var keepProofsSeconds: Int64

    package init(
        keepFull: Int? = nil, keepDays: Int? = nil, keepTiers: [RetentionPeriod: Int] = [:],
        graceSeconds: Int64 = 86_400, keepProofsSeconds: Int64 = 3 * 366 * 86_400
    ) {
        self.keepFull = keepFull
        self.keepDays = keepDays
        self.keepTiers = keepTiers
        self.graceSeconds = graceSeconds
        self.keepProofsSeconds = keepProofsSeconds
    }

    /// Whether nothing says what may go: then nothing goes.
    package var isEmpty: Bool { keepFull == nil && !hasTimeRules }
    /// Whether a rule depends on when backups were taken.
    package var hasTimeRules: Bool { keepDays != nil || !keepTiers.isEmpty }
}

/// The periods of which one backup each is kept, in UTC.
package enum RetentionPeriod: String, Sendable, CaseIterable {
    case daily, weekly, monthly, yearly

    /// The period that a moment lies in: `2026-11-21`, `2026-W47` (ISO 8601), `2026-11`, `2026`. They sort as text.
    package func name(of moment: Timestamp) -> String {
        let date = CivilDate(moment)
        switch self {
        case .daily: return "\(digits(date.year, 4))-\(digits(date.month, 2))-\(digits(date.day, 2))"
        case .weekly:
            // The week belongs to the year that its Thursday is in; 1970-01-01 was a Thursday.
            let day = CivilDate.days(year: date.year, month: date.month, day: date.day)
            let weekday = ((day + 3) % 7 + 7) % 7
            let thursday = day - weekday + 3
            let year = CivilDate(Timestamp(secondsSince1970: thursday * 86_400)).year
            let week = (thursday - CivilDate.days(year: year, month: 1, day: 1)) / 7 + 1
            return "\(digits(year, 4))-W\(digits(Int(week), 2))"
        case .monthly: return "\(digits(date.year, 4))-\(digits(date.month, 2))"
        case .yearly: return digits(date.year, 4)
        }
    }
}

private func digits(_ number: Int, _ width: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
}
