// Which backup and which moment a drill tries. Pure but for the random numbers, which come in as an argument.

package import KedgeCatalog
package import KedgeCore
import KedgePostgres
package import KedgeRestore

/// What is to be drilled.
package enum DrillWish: Sendable {
    /// A backup and a target as for a restore; the newest backup and the latest moment where nothing was said.
    case given(RestoreRequest)
    /// A random moment that can be recovered to, from the backup that restore would choose for it; with a label, a
    /// moment after that backup.
    case randomTarget(Label?)
    /// A random backup, and a random moment after it.
    case random
}

/// One stretch of moments that can be reached, as `info` finds them.
package struct DrillWindow: Hashable, Sendable {
    package let timeline: TimelineID
    package let toLSN: LSN
    /// The last commit; nil where nobody could tell.
    package let toTime: Timestamp?
    package let backups: [Backup]

    package struct Backup: Hashable, Sendable {
        package let label: Label
        package let stopLSN: LSN
        package let stopTime: Timestamp

        package init(label: Label, stopLSN: LSN, stopTime: Timestamp) {
            self.label = label
            self.stopLSN = stopLSN
            self.stopTime = stopTime
        }
    }

    package init(timeline: TimelineID, toLSN: LSN, toTime: Timestamp?, backups: [Backup]) {
        self.timeline = timeline
        self.toLSN = toLSN
        self.toTime = toTime
        self.backups = backups
    }
}

extension DrillWish {
    /// The request to plan, out of the windows of the present system. Throws `not-found` where there is no backup in
    /// any of them.
    package func request(
        in windows: [DrillWindow], random: any RandomSource
    ) throws(KedgeError) -> RestoreRequest {
        let label: Label?
        switch self {
        case .given(let request): return request
        case .randomTarget(let wanted): label = wanted
        case .random:
            // Each once, however many windows it lies in.
            let labels = Set(windows.flatMap { $0.backups.map(\.label) }).sorted()
            guard let chosen = DrillWish.pick(labels, random) else { throw DrillWish.nothing }
            label = chosen
        }
        // The newest timeline's last window is what a restore would use; a backup that is not in it has its own.
        let usable = windows.filter { window in label.map { window.contains($0) } ?? !window.backups.isEmpty }
        guard let window = usable.max(by: { ($0.timeline, $0.toLSN) < ($1.timeline, $1.toLSN) }),
            let first = window.first(label)
        else { throw DrillWish.nothing }
        return RestoreRequest(
            backup: label, target: window.moment(after: first, random), timeline: .number(window.timeline),
            standby: false)
    }

    private static func pick<Item>(_ items: [Item], _ random: any RandomSource) -> Item? {
        items.isEmpty ? nil : items[Int(random.next() % UInt64(items.count))]
    }

    private static var nothing: KedgeError {
        KedgeError(
            .notFound, "cannot drill: the repository holds no backup that can be restored",
            hint: "Run \"kedge info\" to see what is there, and \"kedge backup\" to make one.")
    }
}

extension DrillWindow {
    func contains(_ label: Label) -> Bool { backups.contains { $0.label == label } }

    /// The backup with the label; without one the oldest.
    func first(_ label: Label?) -> Backup? {
        label.map { label in backups.first { $0.label == label } } ?? backups.min { $0.stopLSN < $1.stopLSN }
    }

    /// A moment from the end of `backup` to the end of the window, each as likely: a time, or an LSN where times do
    /// not tell.
    func moment(after backup: Backup, _ random: any RandomSource) -> RecoveryTarget {
        if let toTime, toTime > backup.stopTime {
            let span = UInt64(toTime.microseconds - backup.stopTime.microseconds) + 1
            let shift = Int64(clamping: random.next() % span)
            return .time(Timestamp(microseconds: backup.stopTime.microseconds + shift), exclusive: false)
        }
        guard toLSN > backup.stopLSN else { return .immediate }
        return .lsn(backup.stopLSN + random.next() % ((toLSN - backup.stopLSN) + 1), exclusive: false)
    }
}
