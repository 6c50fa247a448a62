// The registration: which database system a cluster's objects belong to.

package import KedgeCore

/// One database system that a cluster is or was. pg_upgrade makes a new one; all of a cluster share its id.
package struct Registration: Hashable, Sendable {
    package var clusterID: RandomID
    /// The cluster's name when it was registered; the directory may have been renamed since.
    package var name: String
    package var systemIdentifier: SystemIdentifier
    /// The major version.
    package var postgresVersion: Int
    package var catalogVersion: UInt32
    package var walSegmentSize: UInt64
    package var blockSize: UInt32
    package var walBlockSize: UInt32
    /// Blocks in one file of a relation.
    package var relationSegmentBlocks: UInt32
    package var createdAt: Timestamp
    package var createdBy: String

    package init(
        clusterID: RandomID, name: String, systemIdentifier: SystemIdentifier, postgresVersion: Int,
        catalogVersion: UInt32, walSegmentSize: UInt64, blockSize: UInt32, walBlockSize: UInt32,
        relationSegmentBlocks: UInt32, createdAt: Timestamp, createdBy: String
    ) {
        self.clusterID = clusterID
        self.name = name
        self.systemIdentifier = systemIdentifier
        self.postgresVersion = postgresVersion
        self.catalogVersion = catalogVersion
        self.walSegmentSize = walSegmentSize
        self.blockSize = blockSize
        self.walBlockSize = walBlockSize
        self.relationSegmentBlocks = relationSegmentBlocks
        self.createdAt = createdAt
        self.createdBy = createdBy
    }

    /// `PG_15_202209061`: the only directory of a tablespace that belongs to this system
    /// (src/common/relpath.h, TABLESPACE_VERSION_DIRECTORY).
    package var tablespaceVersionDirectory: String { "PG_\(postgresVersion)_\(catalogVersion)" }

    package var jsonValue: JSONValue {
        [
            "kedge": "registration", "clusterID": .string(clusterID.hex), "name": .string(name),
            "systemIdentifier": .string(systemIdentifier.description), "postgresVersion": .int(postgresVersion),
            "catalogVersion": .int(catalogVersion), "walSegmentSize": .int(walSegmentSize),
            "blockSize": .int(blockSize), "walBlockSize": .int(walBlockSize),
            "relationSegmentBlocks": .int(relationSegmentBlocks), "createdAt": .string(createdAt.description),
            "createdBy": .string(createdBy),
        ]
    }

    /// The registration that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("registration")
        clusterID = try record.parsed("clusterID") { RandomID(hex: $0) }
        name = try record.string("name")
        systemIdentifier = try record.parsed("systemIdentifier") { SystemIdentifier($0) }
        postgresVersion = try record.integer("postgresVersion")
        catalogVersion = try record.integer("catalogVersion")
        walSegmentSize = try record.integer("walSegmentSize")
        blockSize = try record.integer("blockSize")
        walBlockSize = try record.integer("walBlockSize")
        relationSegmentBlocks = try record.integer("relationSegmentBlocks")
        createdAt = try record.parsed("createdAt") { Timestamp(record: $0) }
        createdBy = try record.string("createdBy")
        for (key, value) in [("blockSize", blockSize), ("walBlockSize", walBlockSize)]
        where value.nonzeroBitCount != 1 || !(1024...65536).contains(value) {
            throw record.invalid(key, "is out of range")
        }
        guard walSegmentSize.nonzeroBitCount == 1, (1 << 20...1 << 30).contains(walSegmentSize) else {
            throw record.invalid("walSegmentSize", "is out of range")
        }
    }
}
