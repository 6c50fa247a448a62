// What the segments of an archive look like.

package import KedgeCore
package import KedgePostgres
import KedgeRepository

extension WALArchive {
    /// What its segments look like. Throws `not-supported` for a PostgreSQL version that this kedge does not know.
    package func segmentFormat() throws(KedgeError) -> WALFormat {
        guard let version = PostgresVersion(rawValue: registration.postgresVersion),
            let segmentSize = UInt32(exactly: registration.walSegmentSize)
        else {
            throw KedgeError(
                .notSupported, "cannot read the WAL of PostgreSQL \(registration.postgresVersion)",
                hint: "Use the kedge version that wrote it, or a newer one.")
        }
        return WALFormat(
            systemIdentifier: registration.systemIdentifier, version: version, segmentSize: segmentSize,
            walBlockSize: registration.walBlockSize)
    }
}
