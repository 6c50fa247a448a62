// How long a restore will take, from what drills measured. Pure.
//
//   time = what a drill needs whatever the size + bytes to fetch / rate of fetching + WAL to replay / rate of replay
//
// Rates come from the newest drills that measured them: a drill of another host or of another load is only a hint, so
// it is always said which one it was.

package import KedgeCatalog
import KedgeCore

/// An estimate, and where it comes from.
package struct RestoreForecast: Hashable, Sendable {
    package let milliseconds: UInt64
    /// The drill whose rate of fetching was taken.
    package let drill: ProofRecord
    /// Whether a drill has told the rate of replay, where there is WAL to replay.
    package let includesReplay: Bool

    /// The estimate for a restore of `bytes` and a replay of `walBytes` after the backup's end. Nil without a drill
    /// that passed. `drills` may come in any order.
    package init?(bytes: UInt64, walBytes: UInt64, drills: some Sequence<ProofRecord>) {
        let newest = drills.filter { $0.level == .drilled && $0.result == .passed }.sorted {
            $0.finished > $1.finished
        }
        guard let drill = newest.first(where: { RestoreForecast.time($0, "fetch", for: bytes) != nil }),
            let fetch = RestoreForecast.time(drill, "fetch", for: bytes)
        else { return nil }
        let replay = newest.lazy.compactMap { RestoreForecast.time($0, "replay", for: walBytes) }.first
        let constant = drill.phases.filter { ["select", "start", "open"].contains($0.name) }.reduce(UInt64(0)) {
            RestoreForecast.sum($0, $1.milliseconds)
        }
        self.drill = drill
        includesReplay = replay != nil || walBytes == 0
        milliseconds = RestoreForecast.sum(RestoreForecast.sum(constant, fetch), replay ?? 0)
    }

    /// How long `bytes` take at the rate of this phase; nil where it measured none.
    private static func time(_ drill: ProofRecord, _ name: String, for bytes: UInt64) -> UInt64? {
        guard let phase = drill.phases.first(where: { $0.name == name }), let measured = phase.bytes, measured > 0
        else {
            return nil
        }
        let time = Double(bytes) / Double(measured) * Double(max(1, phase.milliseconds))
        return time < 1e15 ? UInt64(time.rounded(.up)) : nil
    }

    private static func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }

    /// Such as `it will take about 3 min by the rates of the drill of 2026-11-21T02:00:00Z on host db1`.
    package func sentence(_ duration: (Duration) -> String) -> String {
        let time = duration(.milliseconds(Int64(clamping: milliseconds)))
        return
            "forecast: about \(time)\(includesReplay ? "" : ", and what replay takes, which no drill has measured"), "
            + "by the drill of \(drill.finished) on host \"\(drill.hostName)\""
    }
}
