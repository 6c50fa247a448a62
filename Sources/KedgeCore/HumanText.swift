// Numbers as people read them.
//
// Sizes are counted in steps of 1024 and named kB, MB, GB, TB as pg_size_pretty does (src/backend/utils/adt/dbsize.c):
// a DBA compares them with what the server prints. The exact numbers are in the JSON output.

/// Texts for sizes, rates and durations.
package enum HumanText {
    private static let units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"]

    /// `512 bytes`, `16 MB`, `1.5 GB`: at most four digits, one of them after the point and only below 10.
    package static func size(_ bytes: some BinaryInteger) -> String {
        let bytes = UInt64(clamping: bytes)
        guard bytes >= 1024 else { return bytes == 1 ? "1 byte" : "\(bytes) bytes" }
        var unit = 1
        while unit + 1 < units.count, bytes >> (10 * UInt64(unit)) >= 1024 { unit += 1 }
        let divisor = UInt64(1) << (10 * UInt64(unit))
        let whole = bytes / divisor
        let tenths = (bytes % divisor * 10 + divisor / 2) / divisor
        if whole >= 10 || tenths == 0 || whole == 9 && tenths == 10 {
            let rounded = whole + (tenths >= 5 ? 1 : 0)
            return rounded == 1024 && unit + 1 < units.count ? "1 \(units[unit + 1])" : "\(rounded) \(units[unit])"
        }
        return tenths == 10 ? "\(whole + 1) \(units[unit])" : "\(whole).\(tenths) \(units[unit])"
    }

    /// `12 MB/s`.
    package static func rate(bytesPerSecond: Double) -> String {
        "\(size(bytesPerSecond.isFinite && bytesPerSecond > 0 ? UInt64(min(bytesPerSecond, 1e18)) : 0))/s"
    }

    /// `45 ms`, `1.8 s`, `47 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`: two units at most, rounded down.
    package static func duration(_ duration: Duration) -> String {
        let (whole, attoseconds) = duration.components
        guard whole >= 0, attoseconds >= 0 else { return "0 ms" }
        let milliseconds = Int(attoseconds / 1_000_000_000_000_000)
        switch whole {
        case 0: return "\(milliseconds) ms"
        case 1..<10 where milliseconds >= 100: return "\(whole).\(milliseconds / 100) s"
        case 1..<60: return "\(whole) s"
        case 60..<3600: return pair(whole / 60, "min", whole % 60, "s")
        case 3600..<86_400: return pair(whole / 3600, "h", whole % 3600 / 60, "min")
        default: return pair(whole / 86_400, "d", whole % 86_400 / 3600, "h")
        }
    }

    private static func pair(_ large: Int64, _ largeUnit: String, _ small: Int64, _ smallUnit: String) -> String {
        small == 0 ? "\(large) \(largeUnit)" : "\(large) \(largeUnit) \(small) \(smallUnit)"
    }

    /// `90s`, `7d`: the largest unit that needs no fraction, as the configuration file takes it.
    package static func exactDuration(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let milliseconds = attoseconds / 1_000_000_000_000_000
        if milliseconds != 0 { return "\(seconds * 1000 + milliseconds)ms" }
        for (unit, length) in [("d", Int64(86_400)), ("h", 3600), ("min", 60)] where seconds != 0 {
            if seconds % length == 0 { return "\(seconds / length)\(unit)" }
        }
        return "\(seconds)s"
    }
}
