// Will the repository take the backup? A guess from the last one, for a warning before hours are spent.

package import KedgeCore

/// What a backup will probably take up in its repository.
package enum RoomForecast {
    /// A backup that was stored before.
    package struct Precedent: Hashable, Sendable {
        package let databaseBytes: UInt64
        package let storedBytes: UInt64

        package init(databaseBytes: UInt64, storedBytes: UInt64) {
            self.databaseBytes = databaseBytes
            self.storedBytes = storedBytes
        }
    }

    /// Databases that compress better than this are rare.
    private static let boldestRatio: UInt64 = 10

    /// A sentence where a backup of `databaseBytes` evidently does not fit; nil where it may.
    ///
    /// Without a precedent the best compression is assumed: what is warned of then is certain but for miracles.
    package static func warning(
        databaseBytes: UInt64, precedent: Precedent?, compresses: Bool, space: FileSystemSpace, repository: String
    ) -> String? {
        let needed: UInt64
        let reason: String
        if let precedent, precedent.databaseBytes > 0 {
            let ratio = Double(precedent.storedBytes) / Double(precedent.databaseBytes)
            needed = UInt64(min(Double(databaseBytes) * ratio, 1e18))
            reason = "the last full backup stored \(precedent.storedBytes) bytes"
        } else if compresses {
            needed = databaseBytes / boldestRatio
            reason = "even if it is compressed to a tenth"
        } else {
            needed = databaseBytes
            reason = "nothing is compressed"
        }
        guard needed > space.freeBytes || space.lacksInodes else { return nil }
        return "repository \"\(repository)\" has probably too little room: this backup needs about \(needed) bytes "
            + "(\(reason)). \(space.sentence)"
    }
}
