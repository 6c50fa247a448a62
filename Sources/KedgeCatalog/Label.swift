// The names of backups.

package import KedgeCore

/// What a backup holds by itself.
package enum BackupType: String, Sendable, CaseIterable {
    /// Every page of the cluster.
    case full
    /// The pages that changed since the parent's start; the rest is referred to.
    case delta
}

/// A backup's label: `20261121T020000Z-full-7k3q`. UTC and random, so that neither a clock change nor a second host
/// makes two backups share one (lesson 45).
package struct Label: Hashable, Sendable, Comparable {
    package let text: String

    /// A new label for a backup that starts at `time`.
    package init(time: Timestamp, type: BackupType, random: any RandomSource) {
        let alphabet = Array("0123456789abcdefghijklmnopqrstuvwxyz")
        var bits = random.next()
        var suffix = ""
        for _ in 0..<4 {
            suffix.append(alphabet[Int(bits % 36)])
            bits /= 36
        }
        text = "\(time.labelText)-\(type.rawValue)-\(suffix)"
    }

    /// Parses a label. Nil for anything that this type does not print.
    package init?(_ text: String) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].utf8.count == 16, BackupType(rawValue: String(parts[1])) != nil,
            parts[2].utf8.count == 4,
            parts[2].utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x7A).contains($0) })
        else { return nil }
        for (index, byte) in parts[0].utf8.enumerated() {
            switch index {
            case 8: guard byte == 0x54 else { return nil }
            case 15: guard byte == 0x5A else { return nil }
            default: guard (0x30...0x39).contains(byte) else { return nil }
            }
        }
        self.text = text
    }

    /// The type that the label names.
    package var type: BackupType { text.contains("-delta-") ? .delta : .full }

    /// Ordered by text, and so by the whole second in which the backups started.
    package static func < (left: Label, right: Label) -> Bool { left.text < right.text }
}

extension Label: CustomStringConvertible {
    package var description: String { text }
}
