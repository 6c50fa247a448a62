// What `expire` and `info` say of a backup that stays.

package import KedgeCore

/// Why a backup is kept.
package enum KeepReason: Hashable, Sendable {
    case newest
    /// The newest by its time, where another is the newest by its place.
    case newestByTime
    /// The newest that is consistent, has no damaged pages and failed no proof.
    case newestSound
    case newestDrilled
    case newestProven
    /// `keep-full`: it is the full backup of this number, counted from the newest.
    case full(number: Int)
    /// `keep-full`: it follows one of these.
    case afterFull
    /// `keep-full`: there are not more full backups than that.
    case tooFewFulls
    /// `keep-full`: among those on the way to this timeline, which is in use, it is one of so many.
    case onWay(TimelineID)
    /// `keep-days`: it ended in these days.
    case recent(days: Int)
    /// `keep-days`: the first moments of these days are reached from it.
    case reaches(days: Int)
    case tier(RetentionPeriod, String)
    case pinned
    /// A kept delta goes back to it.
    case base(of: Label)
    /// A delta that is being taken goes back to it.
    case baseOfRunning(Label)
    /// Rules by time are not applied, for this reason.
    case clock(String)
    case noRules
    case unknownSystem
    case unreadableMark
    /// Nothing is removed at all, for this reason.
    case blocked(String)

    /// Whether all WAL after it is kept as well, and not just what makes it consistent.
    ///
    /// Always, for now: from PostgreSQL 15 on recovery reads ahead (recovery_prefetch) and asks for the segment after
    /// the last one that it needs. While that one is missing and later ones are there, `archive-get` calls it a gap,
    /// and recovery ends (docs/decisions/0015).
    package var keepsWALAfterIt: Bool { true }

    /// Part of a sentence, after "kept: ".
    package var text: String {
        switch self {
        case .newest: "the newest backup"
        case .newestByTime: "the newest backup by its time"
        case .newestSound: "the newest backup without a known defect"
        case .newestDrilled: "the newest backup that passed a drill"
        case .newestProven: "the newest proven backup"
        case .full(let number): "full backup no. \(number) of keep-full"
        case .afterFull: "after a full backup of keep-full"
        case .tooFewFulls: "keep-full wants more full backups than there are"
        case .onWay(let timeline): "keep-full wants so many on the way to timeline \(timeline)"
        case .recent(let days): "within the last \(days) day(s)"
        case .reaches(let days): "the last \(days) day(s) are recoverable from it on"
        case .tier(let period, let name): "\(period.rawValue) \(name)"
        case .pinned: "pinned"
        case .base(let label): "base of \(label)"
        case .baseOfRunning(let label): "base of \(label), which is being taken"
        case .clock(let why): "rules by time are not applied: \(why)"
        case .noRules: "no retention is configured"
        case .unknownSystem: "its database system is not registered"
        case .unreadableMark: "its condemned mark cannot be read"
        case .blocked(let why): "nothing is removed: \(why)"
        }
    }

    /// Whether the rule `keep-full` is the reason.
    var isOfKeepFull: Bool {
        switch self {
        case .full, .afterFull, .tooFewFulls, .onWay: true
        default: false
        }
    }
}
