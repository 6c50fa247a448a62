// The primary of a standby that is backed up: only it ends WAL segments, and with archive_mode = on only it archives.
//
// On a standby pg_backup_start takes the last restartpoint, and pg_backup_stop the minimum recovery point, which may
// lie in a segment that the primary has not ended (manual, "Making a Base Backup Using the Low Level API").

import KedgeCore
import KedgePostgres

/// A connection to the primary. Used by one thread at a time.
struct PrimaryServer {
    let connection: DatabaseConnection

    /// Connects, and checks that it is the primary of `standby`.
    ///
    /// Throws `configuration` where it is not, `archiving-broken` where it does not archive, `database-refused` where
    /// full_page_writes is off, and what connecting throws.
    init(
        _ settings: DatabaseSettings, of standby: ServerSettings, clusterName: String, unless interruption: Interruption
    ) throws(KedgeError) {
        do throws(KedgeError) {
            connection = try DatabaseConnection(settings, unless: interruption)
        } catch {
            throw error.wrapped(
                "could not connect to the primary: \(error.message)", detail: error.detail,
                hint: "Check primary-host and primary-port in the cluster's section, or remove them: the backup then "
                    + "waits until the primary ends and archives the last segment by itself.")
        }
        let found = try connection.settings()
        guard try !connection.isInRecovery() else {
            throw KedgeError(
                .configuration, "cannot use the server of primary-host as the primary: it is in recovery",
                detail: "Only a primary can end a WAL segment.",
                hint: "Name the primary in primary-host and primary-port.")
        }
        guard found.systemIdentifier == standby.systemIdentifier else {
            throw KedgeError(
                .configuration, "cannot use the server of primary-host as the primary: it is of another cluster",
                detail: "Its system identifier is \(found.systemIdentifier), that of the standby "
                    + "\(standby.systemIdentifier).", hint: "Name the primary in primary-host and primary-port.")
        }
        guard found.fullPageWrites else {
            throw KedgeError(
                .databaseRefused, "cannot back up the standby: full_page_writes is off on its primary",
                detail: "Pages that were torn while they were copied could not be repaired.",
                hint: "Set full_page_writes = on on the primary, and run CHECKPOINT there.")
        }
        try ServerCheck.checkArchiving(found, clusterName: clusterName)
    }

    /// Ends the segment that the primary writes to. Returns it. `segmentSize` is in bytes.
    func endSegment(segmentSize: UInt64) throws(KedgeError) -> WALSegment {
        let position = try connection.position()
        let end = try connection.switchWAL()
        // The end of a record at a segment's border belongs to the segment before.
        let last = LSN(max(end.position, 1) - 1)
        return WALSegment(timeline: position.timeline, containing: last, segmentSize: segmentSize)
    }

    /// Makes sure that the primary ends `segment`, and that it is still on its timeline.
    func end(_ segment: WALSegment, segmentSize: UInt64) throws(KedgeError) {
        let position = try connection.position()
        guard !position.isInRecovery, position.timeline == segment.timeline else {
            throw KedgeError(
                .databaseRefused, "cannot end the backup: the primary went to another timeline",
                detail: "The backup lies on timeline \(segment.timeline), the primary is on \(position.timeline).",
                hint: "Run the backup again once the standby follows its primary.")
        }
        let present = WALSegment(timeline: position.timeline, containing: position.lsn, segmentSize: segmentSize)
        if present <= segment { _ = try connection.switchWAL() }
    }
}
